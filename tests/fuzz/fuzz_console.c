/* Any bytes typed, any output of two VMs and of the core, on a wire of any speed. What must hold: a VM's
 * bytes reach the wire in order, only while it is in front, and only the oldest of a full ring are lost; what
 * is typed for a VM reaches its port complete and in order; the core's lines are whole and begin a line; a
 * poll takes and sends no more than its share; and whatever happened, Ctrl-A h leads to a prompt that
 * answers. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hv/console/console.h"
#include "hv/exits/emulate.h"
#include "tests/host/fake_host.h"
#include "tests/host/fake_vdev_env.h"
#include "tests/host/machine.h"

#define VMS 2u
#define ALPHABET                                                                                             \
    64u /* VM n prints 0x80 + 64 * n and the 63 bytes behind it, round and round; the core is ASCII */
#define MARK        2 /* the first byte of the core's lines made here */
#define TAIL        64u
#define LINE        128u
#define PRINTED_MAX (64u * CONSOLE_RING) /* of both VMs, after which a run ends: more takes seconds */

static struct boot_info info;
static struct config_vm other_config;
static struct vm other;

/* What must come out. */
static struct {
    uint32_t head, tail;              /* of the ring: byte n is n % ALPHABET */
    uint8_t input[2 * CONSOLE_INPUT]; /* typed and not yet read by the guest */
    uint32_t input_head, input_tail;
} model[VMS];
static uint64_t printed;
static bool after_key;

static struct fake_input in;
static unsigned room, rx_left, rx_calls, tx_calls;
static char tail[TAIL + 1]; /* the last bytes on the wire */
static uint32_t lines_made, line_shown, line_at;
static char line[LINE];
static bool in_line;
static const char *script; /* typed instead of random bytes, for the last check */

static struct vm *vm_of(unsigned n)
{
    return n ? &other : &machine.vm;
}

/* Line n of the core: "<MARK>n:", then some letters. */
static void make_line(uint32_t n, char *text, size_t size)
{
    int used = snprintf(text, size, "%c%u:", MARK, n);
    memset(text + used, 'x', n * 7 % 90);
    text[(size_t)used + n * 7 % 90] = 0;
}

/* ---- the port ---- */

static unsigned wire_room(void)
{
    return room;
}

/* A line of the core's, from its mark to its end: nobody's bytes between, and it is the one it says it is. */
static void check_line(uint8_t byte)
{
    char want[LINE + 1];
    size_t n = strlen(tail);
    if (byte == MARK && !in_line) {
        FAKE_REQUIRE(n == 0 || tail[n - 1] == '\n');
        in_line = true;
        line_at = 0;
    }
    if (!in_line)
        return;
    FAKE_REQUIRE(line_at < LINE);
    line[line_at++] = (char)byte;
    if (byte != '\n')
        return;
    in_line = false;
    unsigned number = (unsigned)strtoul(line + 1, NULL, 10);
    FAKE_REQUIRE(number > line_shown && number <= lines_made); /* some may have been left out */
    line_shown = number;
    make_line(number, want, sizeof(want));
    FAKE_REQUIRE(line_at == strlen(want) + 2 && memcmp(line, want, line_at - 2) == 0 &&
                 line[line_at - 2] == '\r');
}

static void wire_tx(uint8_t byte)
{
    FAKE_REQUIRE(room > 0);
    room--;
    tx_calls++;
    check_line(byte);
    if (byte >= 0x80) {
        unsigned n = byte >= 0x80 + ALPHABET;
        FAKE_REQUIRE(console_front() == vm_of(n) && !console_at_prompt());
        FAKE_REQUIRE(model[n].tail != model[n].head);
        FAKE_REQUIRE(byte == 0x80 + n * ALPHABET + model[n].tail++ % ALPHABET);
    }
    size_t used = strlen(tail);
    if (used == TAIL)
        memmove(tail, tail + 1, used--);
    tail[used] = byte ? (char)byte : ' ';
    tail[used + 1] = 0;
}

static bool wire_idle(void)
{
    return true;
}

/* The model of Ctrl-A and of who gets a byte; the console has dealt with all bytes before this one. */
static void expect(uint8_t byte)
{
    struct vm *front = console_front();
    bool literal = after_key && (byte == 'a' || byte == 'A' || byte == CONSOLE_KEY);
    bool plain = !after_key && byte != CONSOLE_KEY;
    after_key = !after_key && byte == CONSOLE_KEY;
    if (!front || console_at_prompt() || !(literal || plain) || !life_is_live(front->state))
        return;
    unsigned n = front == &other;
    if (front->console.input_head - front->console.input_tail < CONSOLE_INPUT)
        model[n].input[model[n].input_head++ % (2 * CONSOLE_INPUT)] = literal ? CONSOLE_KEY : byte;
}

static uint8_t choose(void)
{
    static const char *const likely =
        "\001\001\0011127hha?\r\n\033[A\177\003\004\025 exit log vms help attach other test 3";
    uint8_t pick = fake_input_u8(&in);
    return pick < 0xc0 ? (uint8_t)likely[pick % strlen(likely)] : fake_input_u8(&in);
}

static int wire_rx(void)
{
    rx_calls++;
    if (script) {
        if (!*script)
            return -1;
        expect((uint8_t)*script);
        return *script++;
    }
    if (rx_left == 0 || !fake_input_left(&in))
        return -1;
    rx_left--;
    uint8_t byte = choose();
    expect(byte);
    return byte;
}

static const struct console_port port = {
    .tx_room = wire_room, .tx = wire_tx, .tx_idle = wire_idle, .rx = wire_rx};

/* ---- steps ---- */

static void print(unsigned n, unsigned count)
{
    printed += count;
    for (unsigned i = 0; i < count; i++) {
        if (model[n].head - model[n].tail == CONSOLE_RING)
            model[n].tail++;
        console_vm_put(vm_of(n), (uint8_t)(0x80 + n * ALPHABET + model[n].head++ % ALPHABET));
    }
}

static uint8_t port_byte(unsigned reg, bool write, uint8_t value)
{
    struct io_req req = {.addr = UART_COM1_PORT + reg, .size = 1, .write = write, .value = value};
    emulate_port_access(&machine.vcpus[0], &req);
    return (uint8_t)req.value;
}

/* The guest reads what its port has. */
static void read_input(void)
{
    while (port_byte(5, false, 0) & 1) {
        FAKE_REQUIRE(model[0].input_tail != model[0].input_head);
        FAKE_REQUIRE(port_byte(0, false, 0) == model[0].input[model[0].input_tail % (2 * CONSOLE_INPUT)]);
        model[0].input_tail++;
    }
}

static uint32_t input_kept(unsigned n)
{
    return vm_of(n)->console.input_head - vm_of(n)->console.input_tail;
}

static void poll(unsigned wire, unsigned bytes)
{
    uint32_t in_port[VMS];
    for (unsigned n = 0; n < VMS; n++) {
        in_port[n] = model[n].input_head - model[n].input_tail - input_kept(n);
        FAKE_REQUIRE(in_port[n] <= (n ? 0 : UART_FIFO_SIZE));
    }
    room = wire;
    rx_left = bytes;
    rx_calls = tx_calls = 0;
    console_poll();
    FAKE_REQUIRE(rx_calls <= 65 && tx_calls <= wire);
    for (unsigned n = 0; n < VMS; n++) {
        const struct console_vm *c = &vm_of(n)->console;
        if (!life_is_live(vm_of(n)->state)) { /* what was typed for a life that is over is dropped */
            FAKE_REQUIRE(input_kept(n) == 0);
            model[n].input_head = model[n].input_tail + in_port[n];
        }
        FAKE_REQUIRE(c->head - c->tail <= CONSOLE_RING && c->head - c->tail == model[n].head - model[n].tail);
        FAKE_REQUIRE(c->input_head - c->input_tail <= CONSOLE_INPUT);
    }
    room = 0;
}

static bool few_lines(struct lines *self, char *text, size_t size)
{
    snprintf(text, size, "%s", self->step % 3 == 2 ? "" : "shown");
    return self->step++ < self->count;
}

static void core_speaks(uint8_t how)
{
    char text[LINE + 1];
    struct lines lines = {.next = few_lines, .count = how >> 4};
    switch (how & 3) {
    case 0:
    case 1:
        make_line(++lines_made, text, sizeof(text));
        console_line(text);
        break;
    case 2:
        console_show(&lines);
        break;
    default:
        log_vm((enum log_level)(how >> 2 & 3), vm_of(how >> 4 & 1), "a line");
    }
}

static void step(void)
{
    uint8_t op = fake_input_u8(&in), more = fake_input_u8(&in);
    switch (op & 7) {
    case 0:
    case 1:
        print(op >> 3 & 1, op & 0x80 ? more * 64u : more);
        break;
    case 2:
        core_speaks(more);
        break;
    case 3:
        vm_of(op >> 3 & 1)->state = more & 1 ? VM_RUNNING : VM_STOPPED;
        break;
    case 4:
        read_input();
        break;
    default:
        for (unsigned i = 0; i <= op >> 4; i++)
            poll(more >> 4 ? more >> 4 : op >> 3 & 1 ? 1000 : 0, more & 15 ? more & 15 : 100);
    }
    other.state = VM_FAILED;
}

/* ---- the end: nothing is stuck, nothing is missing ---- */

static void settle(unsigned polls)
{
    for (unsigned i = 0; i < polls; i++)
        poll(4096, 0);
}

static void check_prompt(void)
{
    script = after_key ? "h" : "\001h";
    settle(200);
    script = "log 0\r";
    settle(8);
    FAKE_REQUIRE(console_at_prompt());
    const char *end = "bulkhead> log 0\r\nbulkhead> ";
    size_t n = strlen(tail), want = strlen(end);
    FAKE_REQUIRE(n >= want && memcmp(tail + n - want, end, want) == 0);
}

static void check_nothing_missing(void)
{
    machine.vm.state = VM_RUNNING;
    script = "\001"
             "1";
    settle(1);
    script = "";
    for (unsigned i = 0; i < CONSOLE_INPUT + 2; i++) {
        poll(4096, 0);
        read_input();
    }
    FAKE_REQUIRE(model[0].input_tail == model[0].input_head);
    FAKE_REQUIRE(model[0].tail == model[0].head);
    FAKE_REQUIRE(other.console.input_head - other.console.input_tail ==
                 model[1].input_head - model[1].input_tail);
    console_flush();
    FAKE_REQUIRE(console_backlog() == 0);
}

static void begin(void)
{
    memset(model, 0, sizeof(model));
    memset(&other, 0, sizeof(other));
    memset(tail, 0, sizeof(tail));
    after_key = in_line = false;
    printed = 0;
    lines_made = line_shown = 0;
    script = NULL;
    machine_init(1);
    room = UINT32_MAX;
    script = "";
    console_init(&port);
    console_write("\n");
    console_flush(); /* what the last run left */
    tail[0] = 0;
    script = NULL;
    room = 0;
    strcpy(other_config.name, "other");
    other_config.console = 2;
    machine.config.console = 1;
    other.id = 1;
    other.config = &other_config;
    other.name = other_config.name;
    other.state = VM_FAILED; /* it has neither vCPUs nor devices: an order must not start it */
    log_source_init(&other.log, other.name, LOG_DEBUG);
    core.info = &info;
    info.config.vm_count = VMS;
    core.vms[1] = &other;
    /* Nothing is shown a second time, which the model does not know: the VMs print no ends of lines, and were
     * there before. */
    machine.vm.console.kept = other.console.kept = CONSOLE_RING;
    port_byte(2, true, 1); /* FIFO on */
}

static void run(void)
{
    console_attach(&machine.vm);
    while (fake_input_left(&in) && printed < PRINTED_MAX)
        step();
    check_prompt();
    check_nothing_missing();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    in = (struct fake_input){.data = data, .size = size};
    begin();
    fake_host_catch(run()); /* `reboot` and its like end it */
    return 0;
}
