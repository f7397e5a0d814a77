/* Runs the programs that the command line names: test=a,b,c. Each prints what it did and its verdict; after
 * the last one the VM is switched off. With ask=1 each waits for a key. */
#include "hostile.h"

#define KEY_POLL_MS 100u

#define ROW(name, steps, fatal)                                                                              \
    {                                                                                                        \
#name, program_##name, steps, fatal                                                                  \
    }
static const struct program programs[] = {
    ROW(vmx, 1, false),       ROW(msr, 1, false),        ROW(port, 1, false),    ROW(port_string, 1, false),
    ROW(physical, 1, false),  ROW(control, 1, false),    ROW(xcr0, 1, false),    ROW(ipi, 1, false),
    ROW(ipi_x2, 1, false),    ROW(ipi_storm, 1, false),  ROW(smc, 1, false),     ROW(smc_unknown, 1, true),
    ROW(paging, 1, false),    ROW(paging_lost, 4, true), ROW(fetch, 4, true),    ROW(triple, 1000, true),
    ROW(task, 4, true),       ROW(reset, 6, true),       ROW(delivery, 2, true), ROW(storm, 1, false),
    ROW(hypercall, 1, false), ROW(flood, 1, false),      ROW(halt, 1, false),    ROW(debug, 1, false),
    ROW(monitor, 1, false),   ROW(rep, 1, false),        ROW(fuzz, 1, false),    ROW(vf_dma, 1, false),
    ROW(vf_storm, 1, false),  ROW(vf_msi, 1, false),     ROW(vf_mail, 1, false), ROW(vf_config, 1, false),
    ROW(vf_bars, 1, false),   ROW(vf_msix, 1, false),    ROW(vf_flr, 1, false),  ROW(vf_busy, 1, false),
    ROW(vf_spoof, 1, false),
};

static const struct program *find(const char *name)
{
    for (unsigned i = 0; i < sizeof(programs) / sizeof(programs[0]); i++) {
        if (text_equals(programs[i].name, name))
            return &programs[i];
    }
    return NULL;
}

static void run_program(const struct program *p)
{
    bool good = true;
    while (progress->step < p->steps) {
        unsigned step = (unsigned)progress->step++;
        p->run(step);
        interrupts_off();
        if (!p->fatal)
            continue;
        good = false;
        print("hostile: %s: step %u should have ended this VM\n", p->name, (uint64_t)step);
    }
    if (p->fatal)
        verdict(p->name, good, "%u steps, each ended this VM", (uint64_t)p->steps);
}

/* Whoever sits at this VM's console says when the next program may begin. */
static void wait_for_key(const char *next)
{
    print("hostile: a key starts %s\n", next);
    while (!(in8(COM1 + 5) & LSR_DATA))
        sleep_ms(KEY_POLL_MS);
    (void)in8(COM1);
}

const char guest_name[] = "hostile";

void guest_main(void)
{
    char names[256], *at = names;
    if (!option_text("test", names, sizeof(names))) {
        print("hostile: no test= on the command line: %s\n", command_line);
        return;
    }
    if (progress->boots == 1)
        print("hostile: %u MiB, %u physical address bits\n", memory_top >> 20, (uint64_t)physical_bits);
    /* Ends of VMs make long reports: the rig spreads them. */
    sleep_ms(option_number(progress->boots == 1 ? "delay" : "again", 0));
    for (uint64_t i = 0; *at; i++) {
        char *name = at;
        while (*at && *at != ',')
            at++;
        if (*at)
            *at++ = 0;
        const struct program *p = find(name);
        if (!p)
            verdict(name, false, "there is no such program");
        if (!p || i < progress->program)
            continue;
        if (option_number("ask", 0))
            wait_for_key(name);
        run_program(p);
        progress->program = i + 1;
        progress->step = 0;
    }
    print("hostile: done after %u starts\n", progress->boots);
}
