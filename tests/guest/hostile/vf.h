/* A virtual function of an 82576 or I350, on this guest's PCI bus, with as much of a driver as an attacker
 * needs: its transmit queue reads and writes wherever it is told to. */
#pragma once

#include "hostile.h"

enum {
    PCI_COMMAND = 0x04,
    PCI_BAR0 = 0x10,
    PCI_CAPABILITIES = 0x34,
    PCI_CAP_ID_PCIE = 0x10,
    PCI_CAP_ID_MSIX = 0x11,
    PCI_COMMAND_MEMORY = 2,
    PCI_COMMAND_MASTER = 4,
};

/* Registers of the VF (82576 data sheet, 7.10.2). */
enum {
    VF_CTRL = 0x0000,
    VF_STATUS = 0x0008,
    VF_EIMS = 0x1524,
    VF_EIAC = 0x152c,
    VF_IVAR0 = 0x1700,
    VF_EICS = 0x1520,
    VF_MEMORY = 0x0800, /* of the mailbox: 16 dwords */
    VF_MAILBOX = 0x0c40,
    VF_RDBAL = 0x2800,
    VF_RDBAH = 0x2804,
    VF_RDLEN = 0x2808,
    VF_SRRCTL = 0x280c,
    VF_RDT = 0x2818,
    VF_RXDCTL = 0x2828,
    VF_TDBAL = 0x3800,
    VF_TDBAH = 0x3804,
    VF_TDLEN = 0x3808,
    VF_TDH = 0x3810,
    VF_TDT = 0x3818,
    VF_TXDCTL = 0x3828,
    VF_TDWBAL = 0x3838,
    VF_TDWBAH = 0x383c,
};
#define MAILBOX_REQ   0x01u
#define MAILBOX_ACK   0x02u
#define MAILBOX_VFU   0x04u
#define MAILBOX_PFSTS 0x10u
#define MAILBOX_PFACK 0x20u
#define MAILBOX_RSTI  0x40u
#define MAIL_DWORDS   16u
#define MAIL_RESET    1u
#define MAIL_ACK      (1u << 31)
#define MAIL_NACK     (1u << 30)

struct vf {
    uint32_t device;     /* its slot on bus 0 */
    uint64_t bars[2];    /* addresses of BAR 0 (registers) and BAR 3 (MSI-X) */
    uint32_t pcie, msix; /* capabilities */
    uint32_t mac[2];     /* as the PF told it */
};
extern struct vf vf;

/* Configuration space of the VF through ECAM; at is naturally aligned for its width. */
volatile void *vf_config(uint32_t at);
uint32_t vf_config_read(uint32_t at);
void vf_config_write(uint32_t at, uint32_t v);
/* Moves BAR 0 (n = 0) or BAR 3 (n = 1), the lower half first. */
void vf_place(unsigned n, uint64_t address);
uint32_t vf_read(uint32_t at);
void vf_write(uint32_t at, uint32_t v);

/* Finds it, switches it on, resets it, and makes its queue. False, and said why: there is none, or its PF
 * does not answer. */
bool vf_open(const char *program);
/* The same after something that may have moved or reset it. */
bool vf_reopen(void);
/* Waits until it is not being reset: then configuration space gives all ones. False: for a second it was. */
bool vf_ready(void);
/* A function level reset; false: it did not come back within a second, or its registers were there all the
 * while. */
bool vf_flr(void);
/* The same, asked for again and again while it goes on. */
bool vf_flr_storm(void);
/* A message to the PF; its answer replaces the words. 0: none within `us`. */
uint32_t vf_mail(uint32_t *words, unsigned count, uint64_t us);
/* Sends 64 bytes from `from` and has the card write the queue's head to `to` (a multiple of 4). The value
 * that was written if it was; false: the card did not get on within 20 ms. */
bool vf_dma(uint64_t from, uint64_t to, uint32_t *value);
/* Gives the card the same to do, and does not wait. Answers what the queue's head will be then. */
uint32_t vf_begin_dma(uint64_t from, uint64_t to);
/* Does DMA to this VM's own memory still arrive? */
bool vf_arrives(void);
