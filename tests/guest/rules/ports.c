/* The small system ports: port 0x92 ("PS/2 Hardware Interface Technical Reference", "System Control Port A";
 * ICH data sheets, "PORT92"), the reset control register 0xcf9 (PIIX3 data sheet, "RC"; ICH, "RST_CNT"), the
 * POST code's and the delay port. What resets is the raw image's and the Multiboot guest's. */
#include "rules.h"

#define PORT_A      0x92u
#define A_RESET     0x01u
#define A_A20       0x02u
#define POST        0x80u
#define DELAY       0xedu
#define RESET       0xcf9u
#define RESET_HARD  0x02u
#define RESET_START 0x04u
#define RESET_FULL  0x08u

static void port_a(void)
{
    check_equal(in8(PORT_A) & (A_RESET | A_A20), A_A20, "port 0x92: A20 is on, no reset");
    out8(PORT_A, 0);
    check_equal(in8(PORT_A) & (A_RESET | A_A20), 0, "port 0x92: A20 off reads back");
    out8(PORT_A, A_A20);
    check_equal(in8(PORT_A) & (A_RESET | A_A20), A_A20, "port 0x92: A20 on reads back");
    out8(PORT_A, 0xfe);
    check_equal(in8(PORT_A), A_A20, "port 0x92: the other bits are not there");
    out8(PORT_A, A_A20);
}

static void reset_control(void)
{
    check_equal(in8(RESET), 0, "port 0xcf9 is 0 at first");
    out8(RESET, RESET_HARD);
    check_equal(in8(RESET), RESET_HARD, "port 0xcf9: a hard reset is chosen, not begun");
    out8(RESET, RESET_HARD | RESET_FULL);
    check_equal(in8(RESET), RESET_HARD | RESET_FULL, "port 0xcf9: a full one");
    out8(RESET, (uint8_t) ~(RESET_START | RESET_HARD | RESET_FULL));
    check_equal(in8(RESET), 0, "port 0xcf9: the other bits are not there");
    uint32_t address = in32(0xcf8);
    out32(0xcf8, 0x80000000u | RESET_START << 8);
    check_equal(in32(0xcf8), 0x80000000u | RESET_START << 8, "32 bits at 0xcf8 are PCI's, and reset nothing");
    check_equal(in8(RESET), 0, "nor do they change port 0xcf9");
    out32(0xcf8, address);
}

void rule_ports(void)
{
    port_a();
    reset_control();
    out8(POST, 0x5a);
    check_equal(in8(POST), 0x5a, "the POST code reads back");
    out8(DELAY, 0xa5);
    check_equal(in8(POST), 0x5a, "the delay port is another");
    check_equal(in8(DELAY), 0xff, "and holds nothing");
}
