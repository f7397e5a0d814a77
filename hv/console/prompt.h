/* Bulkhead's own prompt: a line editor and the commands (hv/console/prompt_commands.c). It runs inside
 * console_poll(), on a CPU that runs a guest too, so it never waits: a command answers at once with a struct
 * lines, which is asked for one line at a time as the console has room. All functions: only the CPU that
 * polls. */
#pragma once

#include "hv/console/lines.h"

#define PROMPT_LINE_MAX 120u /* characters of a command line */
#define PROMPT_WORDS    6u   /* words of a command line that are looked at */
#define PROMPT_REPLY    200u

/* What a command gets, and what it answers with. */
struct prompt_call {
    uint32_t count;                  /* words, the command itself included; 1..PROMPT_WORDS */
    const char *words[PROMPT_WORDS]; /* words[0] is the command's full name */
    char reply[PROMPT_REPLY];        /* an answer of one line, "" = none */
    struct lines lines;              /* a longer one; next = NULL: none */
    /* Called when `lines` has no more: sets it up for the next part (another VM or vCPU) and answers true.
     * NULL: one part is all. */
    bool (*more)(struct prompt_call *call);
    uint32_t step; /* for `more` */
};

struct prompt_command {
    const char *name, *arguments, *help;
    void (*run)(struct prompt_call *call);
};
/* The commands in the order of `help`: a new one is a row in this table. */
extern const struct prompt_command prompt_commands[];
extern const uint32_t prompt_command_count;

/* hv/console/prompt_pci.c */
void prompt_run_pci(struct prompt_call *call);

/* Empty line, no history, nothing runs. */
void prompt_init(void);
/* Shows the prompt: it has come to the front. */
void prompt_show(void);
/* A byte that was typed. */
void prompt_input(uint8_t byte);
/* One step of whatever runs: at most one line. */
void prompt_poll(void);
