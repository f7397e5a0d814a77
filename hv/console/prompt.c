#include "hv/console/prompt.h"
#include "hv/console/console.h"
#include "hv/lib/fmt.h"
#include "hv/lib/near.h"
#include "hv/lib/string.h"

#define PROMPT  "bulkhead> "
#define HISTORY 8u
#define AHEAD   256u /* bytes typed while a command runs */
#define BACKLOG 256u /* bytes that keep the wire busy until the next poll */

#define KEY_CTRL_C    0x03u
#define KEY_CTRL_D    0x04u
#define KEY_BACKSPACE 0x08u
#define KEY_CTRL_U    0x15u
#define KEY_ESCAPE    0x1bu
#define KEY_DELETE    0x7fu

/* Where in an escape sequence the input is (ECMA-48: ESC [ parameters final, and VT100's ESC O final). */
enum escape { ESCAPE_NONE, ESCAPE_BEGUN, ESCAPE_SEQUENCE };

static struct {
    char text[PROMPT_LINE_MAX + 1]; /* the line being edited */
    uint32_t length;
    enum escape escape;
    bool after_cr; /* the LF of a CR LF is to be left out */

    char history[HISTORY][PROMPT_LINE_MAX + 1]; /* line n is at n % HISTORY */
    uint32_t entered, recalled;                 /* lines ever; the one that is shown, == entered: none */

    bool busy; /* a command runs */
    struct prompt_call call;
    char words[PROMPT_LINE_MAX + 1]; /* what call.words points into */
    uint8_t ahead[AHEAD];
    uint32_t ahead_count;
    uint32_t lines_seen; /* console_lines() when the prompt was drawn */
} p;

void prompt_init(void)
{
    memset(&p, 0, sizeof(p));
}

static void draw(void)
{
    p.lines_seen = console_lines();
    console_write(PROMPT);
    console_write(p.text);
}

static void clear(void)
{
    p.length = 0;
    p.text[0] = 0;
    p.recalled = p.entered;
}

void prompt_show(void)
{
    p.busy = false; /* whatever ran when the prompt was left */
    p.ahead_count = 0;
    clear();
    p.escape = ESCAPE_NONE;
    console_line(CONSOLE_ATTRIBUTES_OFF
                 "--- Bulkhead's prompt: `help` lists the commands, Ctrl-A 1..9 or `exit` leaves ---");
    draw();
}

/* ---- from a line to a command ---- */

static void split(const char *line)
{
    char *at = p.words;
    str_copy(p.words, sizeof(p.words), line);
    p.call.count = 0;
    while (*at && p.call.count < PROMPT_WORDS) {
        while (*at == ' ')
            *at++ = 0;
        if (!*at)
            break;
        p.call.words[p.call.count++] = at;
        while (*at && *at != ' ')
            at++;
    }
    while (*at == ' ') /* behind the last word that counts */
        *at++ = 0;
}

static bool begins_with(const char *name, const char *prefix)
{
    while (*prefix && *name == *prefix) {
        name++;
        prefix++;
    }
    return *prefix == 0;
}

static void reply_ambiguous(const char *word)
{
    size_t n = fmt_format(p.call.reply, sizeof(p.call.reply), "'%s' can be", word);
    const char *comma = " ";
    for (uint32_t i = 0; i < prompt_command_count; i++) {
        if (!begins_with(prompt_commands[i].name, word) || n >= sizeof(p.call.reply))
            continue;
        n += fmt_format(p.call.reply + n, sizeof(p.call.reply) - n, "%s%s", comma, prompt_commands[i].name);
        comma = ", ";
    }
}

static void reply_unknown(const char *word)
{
    struct span span = {(const uint8_t *)word, str_length(word)};
    for (uint32_t i = 0; i < prompt_command_count; i++) {
        if (!near_miss(span, prompt_commands[i].name))
            continue;
        fmt_format(p.call.reply, sizeof(p.call.reply), "there is no command '%s': did you mean '%s'?", word,
                   prompt_commands[i].name);
        return;
    }
    fmt_format(p.call.reply, sizeof(p.call.reply), "there is no command '%s': `help` lists them", word);
}

/* The command with this name, or the only one that begins like it; NULL with a reply. */
static const struct prompt_command *find(const char *word)
{
    const struct prompt_command *found = NULL;
    uint32_t matches = 0;
    for (uint32_t i = 0; i < prompt_command_count; i++) {
        if (str_equal(prompt_commands[i].name, word))
            return &prompt_commands[i];
        if (begins_with(prompt_commands[i].name, word)) {
            found = &prompt_commands[i];
            matches++;
        }
    }
    if (matches == 1)
        return found;
    if (matches)
        reply_ambiguous(word);
    else
        reply_unknown(word);
    return NULL;
}

static void remember(void)
{
    if (p.entered == 0 || !str_equal(p.history[(p.entered - 1) % HISTORY], p.text))
        memcpy(p.history[p.entered++ % HISTORY], p.text, sizeof(p.text));
}

static void enter(void)
{
    console_write("\n");
    memset(&p.call, 0, sizeof(p.call));
    split(p.text);
    if (p.call.count)
        remember();
    clear();
    if (p.call.count == 0) {
        draw();
        return;
    }
    p.busy = true;
    const struct prompt_command *command = find(p.call.words[0]);
    if (!command)
        return;
    p.call.words[0] = command->name;
    command->run(&p.call);
}

/* ---- editing ---- */

static void erase(uint32_t count)
{
    for (; count && p.length; count--) {
        p.text[--p.length] = 0;
        console_write("\b \b");
    }
}

static void recall(bool older)
{
    uint32_t oldest = p.entered > HISTORY ? p.entered - HISTORY : 0;
    if (older ? p.recalled == oldest : p.recalled == p.entered)
        return;
    p.recalled += older ? -1u : 1u;
    erase(p.length);
    if (p.recalled != p.entered)
        str_copy(p.text, sizeof(p.text), p.history[p.recalled % HISTORY]);
    p.length = (uint32_t)str_length(p.text);
    console_write(p.text);
}

/* True: the byte was part of an escape sequence. Only the arrows mean something. */
static bool in_sequence(uint8_t byte)
{
    if (byte < ' ') { /* a control ends any sequence */
        p.escape = byte == KEY_ESCAPE ? ESCAPE_BEGUN : ESCAPE_NONE;
        return byte == KEY_ESCAPE;
    }
    switch (p.escape) {
    case ESCAPE_BEGUN:
        p.escape = byte == '[' || byte == 'O' ? ESCAPE_SEQUENCE : ESCAPE_NONE;
        return p.escape == ESCAPE_SEQUENCE;
    case ESCAPE_SEQUENCE:
        if (byte < '@') /* parameters */
            return true;
        p.escape = ESCAPE_NONE;
        if (byte == 'A' || byte == 'B')
            recall(byte == 'A');
        return true;
    default:
        return false;
    }
}

static void insert(uint8_t byte)
{
    char echo[2] = {(char)byte, 0};
    if (byte < ' ' || byte >= KEY_DELETE)
        return;
    if (p.length == PROMPT_LINE_MAX) {
        console_write("\a");
        return;
    }
    p.text[p.length++] = (char)byte;
    p.text[p.length] = 0;
    console_write(echo);
}

static void cancel(void)
{
    p.busy = false;
    p.ahead_count = 0;
    clear();
    console_write("^C\n");
    draw();
}

/* Nothing is edited until the prompt is shown again. */
static void leave(void)
{
    p.busy = true;
    console_leave_prompt();
}

static void edit(uint8_t byte)
{
    bool lf_of_cr = p.after_cr && byte == '\n';
    p.after_cr = byte == '\r';
    if (lf_of_cr || in_sequence(byte))
        return;
    switch (byte) {
    case '\r':
    case '\n':
        enter();
        break;
    case KEY_BACKSPACE:
    case KEY_DELETE:
        erase(1);
        break;
    case KEY_CTRL_U:
        erase(p.length);
        break;
    case KEY_CTRL_C:
        cancel();
        break;
    case KEY_CTRL_D:
        if (p.length == 0)
            leave();
        break;
    default:
        insert(byte);
    }
}

void prompt_input(uint8_t byte)
{
    if (!p.busy)
        edit(byte);
    else if (byte == KEY_CTRL_C)
        cancel();
    else if (p.ahead_count < AHEAD)
        p.ahead[p.ahead_count++] = byte;
}

/* ---- running ---- */

/* The command's next line on the console. False: it has no more. */
static bool step(void)
{
    struct prompt_call *call = &p.call;
    char line[LINES_MAX] = "";
    if (call->reply[0]) {
        console_line(call->reply);
        call->reply[0] = 0;
        return true;
    }
    if (!call->lines.next)
        return false;
    if (call->lines.next(&call->lines, line, sizeof(line))) {
        if (line[0])
            console_line(line);
        return true;
    }
    return call->more && call->more(call);
}

static void finish(void)
{
    uint8_t ahead[AHEAD];
    uint32_t count = p.ahead_count;
    p.busy = false;
    p.ahead_count = 0;
    draw();
    memcpy(ahead, p.ahead, count);
    for (uint32_t i = 0; i < count; i++)
        prompt_input(ahead[i]);
}

void prompt_poll(void)
{
    if (console_backlog() > BACKLOG)
        return;
    if (p.busy) {
        if (!step())
            finish();
    } else if (p.lines_seen != console_lines()) {
        draw(); /* somebody's line came between */
    }
}
