/* Configuration space: offsets in bytes, and the bits that are used here. Sections are those of the PCI
 * Express Base Specification 6.0, which includes what PCI Local Bus 3.0 and the SR-IOV specification said. */
#pragma once

#include "hv/lib/types.h"

/* 7.5.1, type 0 and 1 headers. */
enum {
    PCI_REG_ID = 0x00,      /* device << 16 | vendor */
    PCI_REG_COMMAND = 0x04, /* status << 16 | command */
    PCI_REG_CLASS = 0x08,   /* class code << 8 | revision */
    PCI_REG_HEADER = 0x0c,  /* BIST, header type, latency timer, cache line size */
    PCI_REG_BAR0 = 0x10,
    PCI_REG_BUSES = 0x18,    /* type 1: latency timer, subordinate, secondary, primary */
    PCI_REG_IO = 0x1c,       /* type 1: secondary status, I/O limit, I/O base */
    PCI_REG_MEMORY = 0x20,   /* type 1: limit << 16 | base, in MiB from bit 4 on */
    PCI_REG_PREFETCH = 0x24, /* type 1: the same, 64-bit when bits 3:0 are 1 */
    PCI_REG_PREFETCH_BASE_HIGH = 0x28,
    PCI_REG_PREFETCH_LIMIT_HIGH = 0x2c,
    PCI_REG_SUBSYSTEM = 0x2c, /* type 0 */
    PCI_REG_IO_HIGH = 0x30,   /* type 1: limit << 16 | base */
    PCI_REG_ROM = 0x30,       /* type 0 */
    PCI_REG_CAPABILITIES = 0x34,
    PCI_REG_INTERRUPT = 0x3c,      /* pin << 8; line */
    PCI_REG_BRIDGE_CONTROL = 0x3e, /* type 1, 16 bits */
    PCI_REG_EXTENDED = 0x100,      /* the first extended capability */
};

#define PCI_ID_NONE      0xffffffffu
#define PCI_CONFIG_SIZE  4096u
#define PCI_LEGACY_SIZE  256u
#define PCI_HEADER_SIZE  64u
#define PCI_HEADER_TYPE  0x7fu /* of the byte at 0x0e */
#define PCI_HEADER_MULTI 0x80u

#define PCI_COMMAND_IO       (1u << 0)
#define PCI_COMMAND_MEMORY   (1u << 1)
#define PCI_COMMAND_MASTER   (1u << 2)
#define PCI_COMMAND_PARITY   (1u << 6)
#define PCI_COMMAND_SERR     (1u << 8)
#define PCI_COMMAND_INTX_OFF (1u << 10)
#define PCI_STATUS_CAPS      (1u << 20) /* as bits of the dword at PCI_REG_COMMAND */
#define PCI_STATUS_BITS      0xffff0000u

#define PCI_BRIDGE_CONTROL_RESET (1u << 6) /* Secondary Bus Reset */

#define PCI_CLASS_STORAGE 0x01u
#define PCI_CLASS_NETWORK 0x02u
#define PCI_CLASS_DISPLAY 0x03u
#define PCI_CLASS_BRIDGE  0x06u
#define PCI_CLASS_SYSTEM  0x08u

#define PCI_FUNCTIONS 8u /* of a device, without ARI */

#define PCI_BARS 6u

enum pci_bar_kind { PCI_BAR_NONE, PCI_BAR_IO, PCI_BAR_MEM32, PCI_BAR_MEM64, PCI_BAR_MEM64_PREFETCH };

#define PCI_BAR_FLAG_IO        0x1u
#define PCI_BAR_FLAG_TYPE      0x6u
#define PCI_BAR_FLAG_64        0x4u
#define PCI_BAR_FLAG_PREFETCH  0x8u
#define PCI_BAR_IO_ADDRESS     0xfffffffcu
#define PCI_BAR_MEMORY_ADDRESS 0xfffffff0u

/* Capability ids (7.5.2 and the "PCI Code and ID Assignment Specification"). */
enum {
    PCI_CAP_PM = 0x01,
    PCI_CAP_MSI = 0x05,
    PCI_CAP_VENDOR = 0x09,
    PCI_CAP_PCIE = 0x10,
    PCI_CAP_MSIX = 0x11,
    PCI_CAP_AF = 0x13,
};
/* Extended capability ids. */
enum {
    PCI_EXT_ACS = 0x000d,
    PCI_EXT_ARI = 0x000e,
    PCI_EXT_ATS = 0x000f,
    PCI_EXT_SRIOV = 0x0010,
    PCI_EXT_PRI = 0x0013,
    PCI_EXT_PASID = 0x001b,
};

/* PCI Express capability, 7.5.3. */
enum {
    PCI_EXP_FLAGS = 0x02, /* 16 bits */
    PCI_EXP_DEVCAP = 0x04,
    PCI_EXP_DEVCTL = 0x08,  /* 16 bits */
    PCI_EXP_DEVSTA = 0x0a,  /* 16 bits */
    PCI_EXP_LNKCTL = 0x10,  /* 16 bits */
    PCI_EXP_DEVCAP2 = 0x24, /* version 2 on */
    PCI_EXP_DEVCTL2 = 0x28, /* 16 bits */
};
#define PCI_EXP_FLAGS_VERSION 0x0fu
#define PCI_EXP_FLAGS_TYPE(f) ((f) >> 4 & 0xfu)
#define PCI_EXP_DEVCAP_FLR    (1u << 28)
#define PCI_EXP_DEVCTL_FLR    (1u << 15)
#define PCI_EXP_DEVSTA_TRPND  (1u << 5)
#define PCI_EXP_DEVCAP2_ARI   (1u << 5) /* ARI Forwarding Supported */
#define PCI_EXP_DEVCTL2_ARI   (1u << 5)

enum pci_exp_type {
    PCI_EXP_ENDPOINT = 0,
    PCI_EXP_LEGACY_ENDPOINT = 1,
    PCI_EXP_ROOT_PORT = 4,
    PCI_EXP_UPSTREAM = 5,
    PCI_EXP_DOWNSTREAM = 6,
    PCI_EXP_TO_PCI = 7,   /* PCI Express to PCI or PCI-X bridge */
    PCI_EXP_FROM_PCI = 8, /* PCI or PCI-X to PCI Express bridge */
    PCI_EXP_RC_ENDPOINT = 9,
    PCI_EXP_RC_COLLECTOR = 10,
};

/* Power Management, 7.5.2. */
enum { PCI_PM_CAPS = 0x02 /* 16 bits */, PCI_PM_CONTROL = 0x04 };
#define PCI_PM_CONTROL_PME_STATUS    (1u << 15) /* cleared by writing 1 */
#define PCI_PM_CONTROL_STATE         0x3u       /* D0 .. D3hot */
#define PCI_PM_CONTROL_NO_SOFT_RESET (1u << 3)
#define PCI_PM_D3HOT                 3u

/* MSI, 7.7.1. Data, mask and pending bits come after the address, which is 4 or 8 bytes long. */
enum { PCI_MSI_CONTROL = 0x02 /* 16 bits */, PCI_MSI_ADDRESS = 0x04 };
#define PCI_MSI_CONTROL_ENABLE   (1u << 0)
#define PCI_MSI_CONTROL_64       (1u << 7)
#define PCI_MSI_CONTROL_MASKABLE (1u << 8)

/* MSI-X, 7.7.2. */
enum { PCI_MSIX_CONTROL = 0x02, PCI_MSIX_TABLE = 0x04, PCI_MSIX_PBA = 0x08 };
#define PCI_MSIX_CONTROL_SIZE   0x7ffu /* entries - 1 */
#define PCI_MSIX_CONTROL_MASK   (1u << 14)
#define PCI_MSIX_CONTROL_ENABLE (1u << 15)
#define PCI_MSIX_BAR            0x7u /* of PCI_MSIX_TABLE and PCI_MSIX_PBA; the rest is the offset */

/* Advanced Features (ECN for Conventional PCI Advanced Features, chapter 2). */
enum { PCI_AF_CAPS = 0x03, PCI_AF_CONTROL = 0x04, PCI_AF_STATUS = 0x05 }; /* 8 bits each */
#define PCI_AF_CAPS_TP      (1u << 0)
#define PCI_AF_CAPS_FLR     (1u << 1)
#define PCI_AF_CONTROL_FLR  (1u << 0)
#define PCI_AF_STATUS_TRPND (1u << 0)

/* Access Control Services, 7.7.11. */
enum { PCI_ACS_CAPS = 0x04, PCI_ACS_CONTROL = 0x06 }; /* 16 bits each */
#define PCI_ACS_SV (1u << 0)                          /* source validation */
#define PCI_ACS_RR (1u << 2)                          /* P2P request redirect */
#define PCI_ACS_CR (1u << 3)                          /* P2P completion redirect */
#define PCI_ACS_UF (1u << 4)                          /* upstream forwarding */
#define PCI_ACS_DT (1u << 6)                          /* direct translated P2P */

/* SR-IOV, 9.3.3. */
enum {
    PCI_SRIOV_CAPS = 0x04,
    PCI_SRIOV_CONTROL = 0x08, /* 16 bits */
    PCI_SRIOV_INITIAL = 0x0c, /* 16 bits each from here on */
    PCI_SRIOV_TOTAL = 0x0e,
    PCI_SRIOV_NUM = 0x10,
    PCI_SRIOV_OFFSET = 0x14,
    PCI_SRIOV_STRIDE = 0x16,
    PCI_SRIOV_DEVICE = 0x1a,
    PCI_SRIOV_PAGES_SUPPORTED = 0x1c, /* 32 bits: bit n = pages of 2^(n+12) bytes */
    PCI_SRIOV_PAGE = 0x20,            /* 32 bits */
    PCI_SRIOV_BAR0 = 0x24,
    PCI_SRIOV_SIZE = 0x40,
};
#define PCI_SRIOV_CONTROL_VFE (1u << 0)
#define PCI_SRIOV_CONTROL_MSE (1u << 3)
#define PCI_SRIOV_CONTROL_ARI (1u << 4)
