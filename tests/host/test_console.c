/* The host's console: who gets the wire and the keyboard, in which order, who waits and what is lost, and the
 * panic path. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "hv/console/console.h"
#include "tests/host/fake_host.h"
#include "tests/host/machine.h"

#define BUFFER   32768u /* bytes of the core's own that wait at most */
#define HIGH     (CONSOLE_RING / 2)
#define RESET    "\033[0m"
#define BANNER_1 RESET "--- test (1), running: Ctrl-A ? shows the keys ---\r\n"
#define BANNER_2 RESET "--- other (2), running: Ctrl-A ? shows the keys ---\r\n"
#define GREETING "--- Bulkhead's prompt: `help` lists the commands, Ctrl-A 1..9 or `exit` leaves ---\r\n"

/* A wire that takes `room` bytes, and `refill` more each time it was found full. */
static unsigned room, refill, idle_after, idle_asked, room_asked;
static uint8_t wire[4 * BUFFER];
static size_t sent;
static const char *typed;
static unsigned rx_calls;
static struct boot_info info;
static struct config_vm other_config;
static struct vm other;

static unsigned wire_room(void)
{
    unsigned now = room;
    room_asked++;
    if (!room)
        room = refill;
    return now;
}

static void wire_tx(uint8_t byte)
{
    assert_true(room > 0 && sent < sizeof(wire) - 1); /* never more than there was room for */
    room--;
    wire[sent++] = byte;
    wire[sent] = 0;
}

static bool wire_idle(void)
{
    return idle_asked++ >= idle_after;
}

static int wire_rx(void)
{
    rx_calls++;
    return *typed ? (uint8_t)*typed++ : -1;
}

static const struct console_port port = {
    .tx_room = wire_room, .tx = wire_tx, .tx_idle = wire_idle, .rx = wire_rx};

static void clear_wire(void)
{
    sent = 0;
    wire[0] = 0;
}

static int setup(void **state)
{
    machine_init(1);
    console_init(&port);
    console_set_screen(NULL);
    room = UINT32_MAX;
    refill = idle_after = idle_asked = 0;
    typed = "";
    console_attach(NULL);
    console_write("\n");
    console_flush(); /* what an earlier test left */
    memset(&other, 0, sizeof(other));
    memset(&info, 0, sizeof(info));
    strcpy(other_config.name, "other");
    other_config.console = 2;
    machine.config.console = 1;
    other.id = 1;
    other.config = &other_config;
    other.name = other_config.name;
    other.state = VM_RUNNING;
    log_source_init(&other.log, other.name, LOG_DEBUG);
    core.info = &info;
    info.config.vm_count = 2;
    core.vms[0] = &machine.vm;
    core.vms[1] = &other;
    clear_wire();
    rx_calls = room_asked = idle_asked = 0;
    return 0;
}

static void assert_sent(const char *text)
{
    assert_string_equal((char *)wire, text);
    clear_wire();
}

static void put(struct vm *vm, const char *text)
{
    while (*text)
        console_vm_put(vm, (uint8_t)*text++);
}

static void attach(struct vm *vm)
{
    console_attach(vm);
    console_poll();
    clear_wire();
}

static void type(const char *text)
{
    typed = text;
    while (*typed)
        console_poll();
    console_poll();
}

/* ---- a guest's output ---- */

static void test_put_waits_for_the_line(void **state)
{
    attach(&machine.vm);
    put(&machine.vm, "abc");
    assert_sent("");
    put(&machine.vm, "\n");
    assert_sent("abc\n"); /* a guest's bytes as they are */
    put(&machine.vm, "login: ");
    console_poll();
    assert_sent("login: ");
}

static void test_background_is_kept(void **state)
{
    attach(&machine.vm);
    put(&other, "one\r\ntwo");
    console_poll();
    assert_sent("");
    put(&machine.vm, "here");
    console_poll();
    assert_sent("here");
    console_attach(&other);
    assert_sent("\r\n" BANNER_2 "one\r\ntwo");
    put(&machine.vm, " and there");
    put(&other, " three\n");
    assert_sent(" three\n");
    console_attach(&machine.vm);
    assert_sent(BANNER_1 "here and there");
    console_attach(&other);
    assert_sent("\r\n" BANNER_2 "one\r\ntwo three\n");
}

/* Who comes to a VM that has had nothing to say sees its last ten lines, the one without an end too. */
static void test_last_lines_are_shown_again(void **state)
{
    char line[16];
    attach(&machine.vm);
    for (unsigned i = 1; i <= 30; i++) {
        snprintf(line, sizeof(line), "line %u\n", i);
        put(&machine.vm, line);
    }
    put(&machine.vm, "# ");
    console_poll();
    console_attach(&other);
    clear_wire();
    console_attach(&machine.vm);
    assert_sent(BANNER_1
                "line 22\nline 23\nline 24\nline 25\nline 26\nline 27\nline 28\nline 29\nline 30\n# ");
    put(&machine.vm, "ls\n");
    assert_sent("ls\n");
    console_attach(&machine.vm); /* again, and the wire is slow: what comes meanwhile comes behind it */
    assert_memory_equal(wire, BANNER_1 "line 22\n", strlen(BANNER_1 "line 22\n"));
    clear_wire();
    room = 0;
    console_attach(&machine.vm);
    for (unsigned i = 0; i < 40; i++) {
        room = 7;
        console_poll();
    }
    assert_sent(BANNER_1
                "line 22\nline 23\nline 24\nline 25\nline 26\nline 27\nline 28\nline 29\nline 30\n# ls\n");
    room = 0;
    console_attach(&machine.vm);
    put(&machine.vm, "new\n");
    for (unsigned i = 0; i < 40; i++) {
        room = 7;
        console_poll();
    }
    assert_memory_equal(wire, BANNER_1 "line 22\n", strlen(BANNER_1 "line 22\n"));
    assert_string_equal((char *)wire + sent - 17, "line 30\n# ls\nnew\n");
    /* Ten lines wait: those are the last. */
    room = UINT32_MAX;
    console_attach(&other);
    clear_wire();
    put(&machine.vm, "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n");
    console_attach(&machine.vm);
    assert_sent(BANNER_1 "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n");
    console_attach(&other);
    clear_wire();
    put(&machine.vm, "11\n");
    console_attach(&machine.vm);
    assert_sent(BANNER_1 "2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n");
}

/* What waits is shown, whosever it is; what was shown is of a life that is over. */
static void test_a_new_life_begins_empty(void **state)
{
    attach(&machine.vm);
    put(&machine.vm, "old\n");
    console_attach(&other);
    put(&machine.vm, "last words\n");
    console_vm_begin(&machine.vm);
    put(&machine.vm, "new\n");
    clear_wire();
    console_attach(&machine.vm);
    assert_sent(BANNER_1 "last words\nnew\n");
    console_vm_begin(&machine.vm);
    console_attach(&other);
    clear_wire();
    console_attach(&machine.vm);
    assert_sent(BANNER_1);
}

/* Lines that are too long for it are not cut in two, nor is one whose beginning is not kept any more. */
static void test_long_lines_are_not_shown_again(void **state)
{
    attach(&machine.vm);
    put(&machine.vm, "before\n");
    for (unsigned i = 0; i < 3000; i++)
        console_vm_put(&machine.vm, 'x');
    console_poll();
    console_attach(&machine.vm);
    console_attach(&other);
    clear_wire();
    console_attach(&machine.vm);
    assert_sent(BANNER_1);
    put(&machine.vm, "\n");
    clear_wire();
    console_attach(&machine.vm);
    assert_sent(BANNER_1);
    put(&machine.vm, "after\n");
    clear_wire();
    console_attach(&machine.vm);
    assert_sent(BANNER_1 "after\n");
}

/* What steers the terminal, or asks it something, does it once only. */
static void test_sequences_are_not_sent_again(void **state)
{
    attach(&machine.vm);
    put(&machine.vm, "\033[32mgreen\033[0m \a\tA\033(BB\033]0;a title\aC\033Pask\033\\D\b\033[6nE\n");
    put(&machine.vm, "\033[1;3\ncut \033]2;x\nF \033OPG \303\244 \033cH\n");
    console_attach(&other);
    clear_wire();
    console_attach(&machine.vm);
    assert_sent(BANNER_1 "green \tABCD\bE\n\ncut \nF G \303\244 H\n");
}

/* Lines that are being shown again and are overwritten meanwhile are left out, and the rest follows. */
static void test_overtaken_while_shown_again(void **state)
{
    attach(&machine.vm);
    put(&machine.vm, "old\n");
    console_poll();
    room = 0;
    console_attach(&machine.vm);
    for (unsigned i = 0; i < CONSOLE_RING; i++)
        console_vm_put(&machine.vm, 'n');
    clear_wire();
    room = UINT32_MAX;
    console_poll();
    assert_int_equal(sent, strlen(BANNER_1) + CONSOLE_RING);
    assert_null(strstr((char *)wire, "old"));
}

static void test_what_is_not_kept_is_counted(void **state)
{
    attach(&machine.vm);
    for (unsigned i = 0; i < CONSOLE_RING + 1000; i++)
        console_vm_put(&other, (uint8_t)('a' + i % 26));
    console_attach(&other);
    const char *lost = RESET
        "--- other (2), running: Ctrl-A ? shows the keys ---\r\n--- other: 1000 bytes of output lost ---\r\n";
    assert_int_equal(sent, strlen(lost) + CONSOLE_RING);
    assert_memory_equal(wire, lost, strlen(lost));
    for (unsigned i = 0; i < CONSOLE_RING; i++)
        assert_int_equal(wire[strlen(lost) + i], 'a' + (i + 1000) % 26);
    console_attach(&machine.vm);
    clear_wire();
    console_attach(&other);
    assert_sent(BANNER_2);
}

/* A guest in the background never asks for anybody's time. */
static void test_background_never_waits(void **state)
{
    struct vcpu *vcpu = &machine.vcpus[0];
    core.cpus[0].vcpu = vcpu;
    attach(&other);
    room_asked = 0;
    for (unsigned i = 0; i < 3 * CONSOLE_RING; i++)
        console_vm_put(&machine.vm, '\n');
    assert_int_equal(vcpu->requests, 0);
    assert_int_equal(sent, 0);
    assert_int_equal(room_asked, 0); /* nor touches the port */
}

static void test_front_is_held_up(void **state)
{
    struct vcpu *vcpu = &machine.vcpus[0];
    core.cpus[0].vcpu = vcpu;
    attach(&machine.vm);
    room = 0;
    for (unsigned i = 0; i < HIGH; i++)
        console_vm_put(&machine.vm, 'x');
    assert_int_equal(vcpu->requests, 0);
    console_vm_put(&machine.vm, 'y');
    assert_int_equal(vcpu->requests, VCPU_REQ_CONSOLE);
    vcpu->requests = 0;
    refill = 1; /* the wire moves */
    uint64_t before = fake_host.tsc;
    fake_host.tsc_step = 1000;
    console_throttle(vcpu);
    assert_int_equal(sent, 1);
    assert_true(fake_host.tsc - before < 100000);
    console_vm_put(&machine.vm, 'z'); /* over the mark again, and now the wire stands still */
    room = refill = 0;
    vcpu->requests = 0;
    before = fake_host.tsc;
    console_throttle(vcpu);
    assert_in_range(fake_host.tsc - before, 2000000, 2010000);
    vcpu->deadline_tsc = fake_host.tsc + 50000; /* never beyond the guest's next timer */
    before = fake_host.tsc;
    console_throttle(vcpu);
    assert_in_range(fake_host.tsc - before, 50000, 60000);
    vcpu->deadline_tsc = UINT64_MAX;
    vcpu->requests = VCPU_REQ_STOP; /* nor when something else is asked of it */
    before = fake_host.tsc;
    console_throttle(vcpu);
    assert_true(fake_host.tsc - before < 10000);
    vcpu->requests = 0;
    console_attach(&other); /* nor when nobody looks any more */
    before = fake_host.tsc;
    console_throttle(vcpu);
    assert_true(fake_host.tsc - before < 10000);
}

/* The request reaches console_throttle() on the way into the guest. */
static void test_throttle_is_asked_for(void **state)
{
    struct vcpu *vcpu = &machine.vcpus[0];
    core.cpus[0].vcpu = vcpu;
    attach(&machine.vm);
    room = 0;
    for (unsigned i = 0; i < HIGH + 1; i++)
        console_vm_put(&machine.vm, 'x');
    refill = 1;
    assert_true(vcpu_prepare_entry(vcpu));
    assert_int_equal(vcpu->requests & VCPU_REQ_CONSOLE, 0);
    assert_int_equal(sent, 1);
}

/* Faster than the wire whatever is tried: the oldest bytes go, and when the flood is over it is said. */
static void test_flood_in_front(void **state)
{
    attach(&machine.vm);
    room = 0;
    for (unsigned i = 0; i < CONSOLE_RING + 5; i++)
        console_vm_put(&machine.vm, 'x');
    room = UINT32_MAX;
    console_poll();
    assert_int_equal(sent, CONSOLE_RING);
    clear_wire();
    console_poll();
    assert_sent("\r\n--- test: 5 bytes of output lost ---\r\n");
}

/* ---- the core's lines ---- */

static void test_write(void **state)
{
    console_write("one\ntwo");
    assert_sent("one\r\ntwo");
    console_line("three"); /* begins a line */
    assert_sent("\r\nthree\r\n");
    console_line("four");
    assert_sent("four\r\n");
}

static void test_line_between_a_guests(void **state)
{
    attach(&machine.vm);
    put(&machine.vm, "guest# ");
    console_poll();
    console_line("core");
    assert_sent("guest# \r\ncore\r\n");
    put(&machine.vm, "ls\n");
    console_line("core");
    assert_sent("ls\ncore\r\n");
}

/* In the order of speaking, when the wire is slow. */
static void test_order(void **state)
{
    attach(&machine.vm);
    room = 0;
    put(&machine.vm, "first\n");
    console_line("second");
    put(&machine.vm, "third\n");
    console_line("fourth"); /* joins the core's line that waits */
    refill = 1;
    for (unsigned i = 0; i < 100; i++)
        console_poll();
    assert_sent("first\nsecond\r\nfourth\r\nthird\n");
}

/* A guest with much to say does not hold up the core. */
static void test_core_does_not_wait_for_ever(void **state)
{
    attach(&machine.vm);
    room = 0;
    for (unsigned i = 0; i < CONSOLE_RING; i++)
        console_vm_put(&machine.vm, 'x');
    console_line("core");
    unsigned polls = 0;
    for (refill = 1; !strstr((char *)wire, "core\r\n") && polls < 2000; polls++)
        console_poll();
    assert_in_range(polls, 450, 1100);
    assert_non_null(strstr((char *)wire, "x\r\ncore\r\n"));
}

static void test_full_queue_drops_whole_lines(void **state)
{
    char line[101];
    room = 0;
    memset(line, 'x', 100);
    line[100] = 0;
    for (unsigned i = 0; i < 1000; i++)
        console_line(line);
    assert_int_equal(sent, 0);
    room = UINT32_MAX;
    console_poll();
    size_t lines = sent / 102;
    assert_int_equal(sent, lines * 102);
    assert_in_range(lines, (BUFFER - 350) / 102, BUFFER / 102);
    clear_wire();
    char expect[100];
    snprintf(expect, sizeof(expect),
             "--- %zu lines not shown, the console is too slow: `log` has them ---\r\n", 1000 - lines);
    console_poll();
    assert_sent(expect);
    console_poll();
    assert_sent("");
}

static void test_full_queue_drops_words(void **state)
{
    room = 0;
    for (unsigned i = 0; i < 2 * BUFFER; i++)
        console_write("w");
    room = UINT32_MAX;
    console_poll();
    assert_int_equal(sent, BUFFER);
    console_write("\n");
}

static bool three(struct lines *self, char *line, size_t size)
{
    assert_ptr_equal(self->vm, &other);
    snprintf(line, size, "%s", (const char *[]){"one", "", "two", "three"}[self->step % 4]);
    return self->step++ < 4;
}

static void test_show(void **state)
{
    struct lines lines = {.next = three, .vm = &other};
    assert_true(console_show(&lines));
    assert_true(console_show(&lines));
    for (unsigned i = 0; i < 20; i++)
        console_poll();
    assert_sent("one\r\ntwo\r\nthree\r\none\r\ntwo\r\nthree\r\n");
    for (unsigned i = 0; i < CONFIG_MAX_VMS; i++)
        assert_true(console_show(&lines));
    assert_false(console_show(&lines));
    console_flush(); /* waits for them */
    assert_int_equal(sent, 17 * CONFIG_MAX_VMS);
}

/* What makes lines goes on as the wire takes them. */
static void test_show_waits_for_the_wire(void **state)
{
    struct lines lines = {.next = three, .vm = &other};
    char text[301];
    memset(text, 'x', 300);
    text[300] = 0;
    room = 0;
    console_line(text);
    console_show(&lines);
    for (unsigned i = 0; i < 100; i++)
        console_poll();
    room = UINT32_MAX;
    console_poll();
    assert_int_equal(sent, 302 + 5);
}

static void test_flush(void **state)
{
    attach(&machine.vm);
    put(&machine.vm, "tail");
    room = 0;
    refill = 1;
    idle_after = 3;
    console_flush();
    assert_int_equal(idle_asked, 4); /* the last byte has left the wire too */
    assert_sent("tail");
}

/* A guest that goes on printing does not keep the machine from its end. */
static void chatter(void)
{
    for (unsigned i = 0; i < 4; i++)
        console_vm_put(&machine.vm, 'n');
}

static unsigned chatty_room(void)
{
    chatter();
    return wire_room();
}

static void test_flush_of_a_flood(void **state)
{
    static const struct console_port chatty = {
        .tx_room = chatty_room, .tx = wire_tx, .tx_idle = wire_idle, .rx = wire_rx};
    attach(&machine.vm);
    put(&machine.vm, "tail");
    console_init(&chatty);
    room = 0;
    refill = 1;
    idle_after = 3; /* a transmitter that is fed is never empty */
    console_flush();
    assert_sent("tail");
}

static char screen_text[64], screen_ctx;
static unsigned refreshes;
static bool screen_busy;

static void screen_put(void *ctx, uint8_t byte)
{
    assert_ptr_equal(ctx, &screen_ctx);
    size_t n = strlen(screen_text);
    screen_text[n] = (char)byte;
    screen_text[n + 1] = 0;
}

static bool screen_refresh(void *ctx, unsigned budget)
{
    assert_ptr_equal(ctx, &screen_ctx);
    assert_in_range(budget, 1, 256);
    refreshes++;
    return screen_busy;
}

static void test_screen(void **state)
{
    static const struct console_screen the_screen = {screen_put, screen_refresh, &screen_ctx};
    console_set_screen(&the_screen);
    console_line("both");
    assert_sent("both\r\n");
    assert_string_equal(screen_text, "both\r\n");
    console_poll();
    assert_int_equal(refreshes, 1);
}

/* ---- the port's interrupt ---- */

static size_t guest_reads(char *to, size_t max);

static void guest_reads_all(void)
{
    char text[64];
    do
        console_poll();
    while (guest_reads(text, sizeof(text) - 1));
}

#define MOMENT (FAKE_TSC_HZ / CONSOLE_POLLS_PER_SECOND)
#define REST   (FAKE_TSC_HZ / CONSOLE_QUIET_PER_SECOND)

static enum console_listen listens;

static void wire_listen(enum console_listen what)
{
    listens = what;
}

static const struct console_port able = {
    .tx_room = wire_room, .tx = wire_tx, .tx_idle = wire_idle, .rx = wire_rx, .listen = wire_listen};

static void polls(unsigned n)
{
    while (n--)
        console_poll();
}

/* A port whose interrupts work, and who has nothing to do. */
static void quiet(void)
{
    listens = CONSOLE_LISTEN_NONE;
    console_init(&able);
    console_attach(&machine.vm);
    console_listen();
    console_interrupt();
    polls(200);
    assert_int_equal(listens, CONSOLE_LISTEN_INPUT);
    assert_int_equal(console_pause(), REST);
    clear_wire();
}

static void test_polled_without_interrupts(void **state)
{
    console_listen(); /* the port has none */
    polls(1000);
    assert_int_equal(console_pause(), MOMENT);
    listens = CONSOLE_LISTEN_NONE;
    console_init(&able);
    polls(1000);
    console_interrupt(); /* nobody asked for it */
    assert_int_equal(console_pause(), MOMENT);
    console_listen();
    assert_int_equal(listens, CONSOLE_LISTEN_ROOM);
    polls(1000); /* none arrives */
    assert_int_equal(console_pause(), MOMENT);
    assert_int_equal(listens, CONSOLE_LISTEN_ROOM);
}

static void test_quiet_until_typed(void **state)
{
    quiet();
    polls(1000);
    assert_int_equal(console_pause(), REST);
    host_cpu()->vcpu = &machine.vcpus[0];
    host_cpu()->poll_tsc = machine.vcpus[0].deadline_tsc = UINT64_MAX;
    console_interrupt();
    assert_int_equal(listens, CONSOLE_LISTEN_NONE);
    assert_int_equal(host_cpu()->poll_tsc, 0); /* the poll is due at once */
    assert_int_equal(machine.vcpus[0].deadline_tsc, 0);
    type("x");
    assert_int_equal(console_pause(), MOMENT);
    polls(100);
    assert_int_equal(console_pause(), MOMENT); /* more may follow */
    type("y");
    polls(100);
    assert_int_equal(console_pause(), MOMENT);
    guest_reads_all();
    polls(200);
    assert_int_equal(console_pause(), REST);
}

static void test_quiet_until_output(void **state)
{
    quiet();
    put(&machine.vm, "login: ");
    console_poll();
    assert_sent("login: ");
    assert_int_equal(console_pause(), MOMENT);
    assert_int_equal(listens, CONSOLE_LISTEN_NONE);
    polls(200);
    assert_int_equal(console_pause(), REST);
    room = 0; /* the wire is slow */
    put(&machine.vm, "abc");
    polls(1000);
    assert_int_equal(console_pause(), MOMENT);
    room = UINT32_MAX;
    polls(200);
    assert_int_equal(console_pause(), REST);
}

static void test_busy_while_drawing(void **state)
{
    static const struct console_screen the_screen = {screen_put, screen_refresh, &screen_ctx};
    quiet();
    console_set_screen(&the_screen);
    screen_busy = true;
    polls(1000);
    assert_int_equal(console_pause(), MOMENT);
    screen_busy = false;
    polls(200);
    assert_int_equal(console_pause(), REST);
}

static void test_lost_interrupts(void **state)
{
    quiet();
    for (unsigned i = 0; i < 7; i++) { /* it came between the poll and its interrupt */
        type("x");
        guest_reads_all();
        polls(200);
        assert_int_equal(console_pause(), REST);
    }
    console_interrupt();
    polls(200);
    for (unsigned i = 0; i < 8; i++) {
        assert_int_equal(console_pause(), REST);
        type("x");
        guest_reads_all();
        polls(200);
    }
    assert_int_equal(console_pause(), MOMENT);
    assert_int_equal(listens, CONSOLE_LISTEN_NONE);
    console_interrupt();
    polls(1000);
    assert_int_equal(console_pause(), MOMENT);
    assert_true(fake_host_logged("do not arrive any more"));
}

/* ---- input ---- */

static size_t guest_reads(char *to, size_t max)
{
    size_t n = 0;
    for (; n < max; n++) {
        struct io_req req = {.addr = UART_COM1_PORT + 5, .size = 1};
        emulate_port_access(&machine.vcpus[0], &req);
        if (!(req.value & 1))
            break;
        req = (struct io_req){.addr = UART_COM1_PORT, .size = 1};
        emulate_port_access(&machine.vcpus[0], &req);
        to[n] = (char)req.value;
    }
    to[n] = 0;
    return n;
}

static void assert_guest_reads(const char *text)
{
    char got[64];
    guest_reads(got, sizeof(got) - 1);
    assert_string_equal(got, text);
}

static void enable_fifo(void)
{
    struct io_req fifo = {.addr = UART_COM1_PORT + 2, .value = 1, .size = 1, .write = true};
    emulate_port_access(&machine.vcpus[0], &fifo);
}

static void test_input_to_the_front(void **state)
{
    console_attach(&machine.vm);
    type("ls\r");
    assert_guest_reads("l"); /* no FIFO: one at a time */
    console_poll();
    assert_guest_reads("s");
    console_poll();
    assert_guest_reads("\r");
    console_poll();
    assert_guest_reads("");
    console_attach(NULL);
    type("nobody");
    console_attach(&machine.vm);
    console_poll();
    assert_guest_reads("");
}

static void test_input_with_fifo(void **state)
{
    enable_fifo();
    console_attach(&machine.vm);
    type("0123456789abcdefghij");
    assert_guest_reads("0123456789abcdef");
    console_poll();
    assert_guest_reads("ghij");
    assert_int_equal(machine.vm.devices.next, machine.vm.devices.serving);
    machine.vm.devices.next++; /* somebody holds it: the poll does not wait */
    type("x");
    machine.vm.devices.next--;
    console_poll();
    assert_guest_reads("x");
}

/* What was typed for a VM is its own, also when another is in front by the time it takes it. */
static void test_input_is_kept(void **state)
{
    enable_fifo();
    attach(&machine.vm);
    machine.vm.state = VM_STARTING;
    type("ab");
    assert_guest_reads("");
    type("\001"
         "2cd");
    machine.vm.state = VM_RUNNING;
    console_poll();
    assert_guest_reads("ab");
    assert_int_equal(other.console.input_head - other.console.input_tail, 1); /* its port has no FIFO */
    machine.vm.state = VM_STOPPED;
    type("\001"
         "1x");
    assert_non_null(strstr((char *)wire, "does not run"));
}

/* What was typed for a VM that has stopped does not reach its next life. */
static void test_input_for_a_stopped_vm(void **state)
{
    enable_fifo();
    attach(&machine.vm);
    machine.vm.state = VM_STOPPING;
    type("rm");
    machine.vm.state = VM_STOPPED;
    console_poll();
    type("ab");
    assert_sent("--- test does not run: Ctrl-A h, then `start test` ---\r\n"); /* once */
    machine.vm.state = VM_STARTING;
    console_poll();
    type("ls");
    machine.vm.state = VM_RUNNING;
    console_poll();
    assert_guest_reads("ls");
}

static void test_input_is_bounded(void **state)
{
    static char much[CONSOLE_INPUT + 3];
    memset(much, 'x', sizeof(much) - 1);
    attach(&machine.vm);
    machine.vm.state = VM_STOPPING;
    type(much);
    assert_sent("\a\a");
    assert_int_equal(machine.vm.console.input_head - machine.vm.console.input_tail, CONSOLE_INPUT);
    type("\001h"); /* the operator is not locked out */
    assert_non_null(strstr((char *)wire, "bulkhead> "));
}

/* One poll takes a bounded number of bytes. */
static void test_poll_is_bounded(void **state)
{
    static char much[1000];
    memset(much, 'x', sizeof(much) - 1);
    attach(&machine.vm);
    typed = much;
    rx_calls = 0;
    console_poll();
    assert_int_equal(rx_calls, 64);
}

/* A poll with nothing to do looks at the port once. */
static void test_idle_poll(void **state)
{
    attach(&machine.vm);
    rx_calls = room_asked = 0;
    console_poll();
    assert_int_equal(rx_calls, 1);
    assert_int_equal(room_asked, 0);
}

static void test_keys(void **state)
{
    enable_fifo();
    attach(&machine.vm);
    put(&other, "hello\n");
    type("\001"); /* split over two polls */
    type("2");
    assert_sent(BANNER_2 "hello\n");
    type("\001"
         "7");
    assert_sent("--- no VM has the digit 7 ---\r\n");
    type("\001?");
    assert_sent("--- " CONSOLE_KEYS " ---\r\n");
    type("\001x");
    assert_sent("--- " CONSOLE_KEYS " ---\r\n");
    type("\001"
         "1\001\001\001a");
    assert_sent(BANNER_1);
    assert_guest_reads("\001\001");
}

static void test_prompt_and_back(void **state)
{
    attach(&machine.vm);
    put(&machine.vm, "guest# ");
    type("\001h");
    assert_sent("guest# \r\n" RESET GREETING "bulkhead> ");
    put(&machine.vm, "unseen\n");
    type("\001\001");
    type("\001"
         "a");
    assert_null(strstr((char *)wire, "unseen"));
    clear_wire();
    console_line("[1.0] core: a line");
    console_poll();
    assert_sent("\r\n[1.0] core: a line\r\nbulkhead> ");
    type("\001"
         "1");
    assert_sent("\r\n" BANNER_1 "guest# unseen\n");
    type("\001h");
    clear_wire();
    type("\004");
    assert_sent("\r\n" BANNER_1 "guest# unseen\n");
}

/* Dropped lines are counted although the guest has become quiet. */
static void test_logs_are_settled(void **state)
{
    attach(&machine.vm);
    for (unsigned i = 0; i < 100; i++)
        log_vm(LOG_INFO, &machine.vm, "again");
    for (unsigned i = 0; i < 300; i++)
        console_poll();
    assert_false(fake_host_logged("dropped")); /* the clock stands still */
    machine.vm.log.summary_us = 0;
    for (unsigned i = 0; i < 300; i++)
        console_poll();
    assert_true(fake_host_logged("test: warning: 60 lines dropped"));
}

/* The guest's output goes the same way. */
static void test_guest_output(void **state)
{
    attach(&machine.vm);
    const char *text = "hi\n";
    for (; *text; text++) {
        struct io_req req = {.addr = UART_COM1_PORT, .value = (uint8_t)*text, .size = 1, .write = true};
        emulate_port_access(&machine.vcpus[0], &req);
    }
    assert_sent("hi\n");
}

/* ---- panic ---- */

static void test_panic(void **state)
{
    attach(&machine.vm);
    room = 0;
    put(&machine.vm, "last words");
    console_line("core");
    machine.vm.console.lock.next++; /* nobody waits for a lock any more */
    refill = 1;
    console_panic_begin();
    console_panic_write("\nPANIC\n");
    assert_sent("core\r\nlast words\r\nPANIC\r\n");
}

/* A panic goes on to the screen and the black box when the port has stopped for good. */
static void test_panic_with_a_stuck_port(void **state)
{
    room = 3;
    refill = 0;
    console_panic_write("PANIC\n");
    console_panic_write("and more\n");
    assert_sent("PAN");
    idle_after = UINT32_MAX;
    console_panic_flush(); /* it has been waited for long enough */
    assert_int_equal(idle_asked, 0);
    console_init(&port);
    console_panic_flush();
    assert_in_range(idle_asked, 1, 1u << 23);
}

/* A port that takes nothing more keeps the machine from going off for some seconds, and not for minutes; one
 * that is only slow is waited for. */
static void test_flush_of_a_stuck_port(void **state)
{
    char line[200];
    memset(line, 'x', sizeof(line) - 1);
    line[sizeof(line) - 1] = 0;
    room = 5;
    console_line(line);
    idle_after = UINT32_MAX;
    console_flush();
    assert_int_equal(sent, 5);
    assert_in_range(room_asked, 1u << 20, 1u << 23);
    idle_after = 0;
    refill = 1; /* a byte for each second look */
    console_flush();
    assert_int_equal(sent, sizeof(line) + 1);
}

#define T(f) cmocka_unit_test_setup(f, setup)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_put_waits_for_the_line),
        T(test_background_is_kept),
        T(test_last_lines_are_shown_again),
        T(test_a_new_life_begins_empty),
        T(test_long_lines_are_not_shown_again),
        T(test_sequences_are_not_sent_again),
        T(test_overtaken_while_shown_again),
        T(test_what_is_not_kept_is_counted),
        T(test_background_never_waits),
        T(test_front_is_held_up),
        T(test_throttle_is_asked_for),
        T(test_flood_in_front),
        T(test_write),
        T(test_line_between_a_guests),
        T(test_order),
        T(test_core_does_not_wait_for_ever),
        T(test_full_queue_drops_whole_lines),
        T(test_full_queue_drops_words),
        T(test_show),
        T(test_show_waits_for_the_wire),
        T(test_flush),
        T(test_flush_of_a_flood),
        T(test_screen),
        T(test_polled_without_interrupts),
        T(test_quiet_until_typed),
        T(test_quiet_until_output),
        T(test_busy_while_drawing),
        T(test_lost_interrupts),
        T(test_input_to_the_front),
        T(test_input_with_fifo),
        T(test_input_is_kept),
        T(test_input_for_a_stopped_vm),
        T(test_input_is_bounded),
        T(test_poll_is_bounded),
        T(test_idle_poll),
        T(test_keys),
        T(test_prompt_and_back),
        T(test_logs_are_settled),
        T(test_guest_output),
        T(test_panic),
        T(test_panic_with_a_stuck_port),
        T(test_flush_of_a_stuck_port),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
