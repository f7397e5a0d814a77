/* VT-d's registers and the entries of its tables, as the VT-d specification 4.1 names them (chapters 9, 11
 * and 6.5.2). */
#pragma once

#include "hv/lib/bits.h"

/* 11.4: offsets in bytes. */
enum vtd_register {
    VTD_VER = 0x00,
    VTD_CAP = 0x08,  /* 64 bits */
    VTD_ECAP = 0x10, /* 64 bits */
    VTD_GCMD = 0x18,
    VTD_GSTS = 0x1c,
    VTD_RTADDR = 0x20, /* 64 bits */
    VTD_FSTS = 0x34,
    VTD_FECTL = 0x38,
    VTD_PMEN = 0x64,
    VTD_IQH = 0x80, /* 64 bits */
    VTD_IQT = 0x88, /* 64 bits */
    VTD_IQA = 0x90, /* 64 bits */
    VTD_ICS = 0x9c,
    VTD_IRTA = 0xb8, /* 64 bits */
};

/* 11.4.2, capabilities */
#define VTD_CAP_ND(cap)    bits_get(cap, 2, 0) /* 2^(4 + 2n) domain ids */
#define VTD_CAP_RWBF       BIT(4)
#define VTD_CAP_PLMR       BIT(5)
#define VTD_CAP_PHMR       BIT(6)
#define VTD_CAP_CM         BIT(7)
#define VTD_CAP_SAGAW(cap) bits_get(cap, 12, 8)  /* bit n: tables of n + 2 levels */
#define VTD_CAP_MGAW(cap)  bits_get(cap, 21, 16) /* bits of an address - 1 */
#define VTD_CAP_FRO(cap)   bits_get(cap, 33, 24) /* in units of 16 bytes */
#define VTD_CAP_2M         BIT(34)
#define VTD_CAP_1G         BIT(35)
#define VTD_CAP_PSI        BIT(39)
#define VTD_CAP_NFR(cap)   bits_get(cap, 47, 40) /* fault registers - 1 */
#define VTD_CAP_MAMV(cap)  bits_get(cap, 53, 48)
#define VTD_CAP_DWD        BIT(54)
#define VTD_CAP_DRD        BIT(55)
#define VTD_CAP_ESIRTPS    BIT(62)
#define VTD_CAP_ESRTPS     BIT(63)

/* 11.4.3, extended capabilities */
#define VTD_ECAP_C         BIT(0)
#define VTD_ECAP_QI        BIT(1)
#define VTD_ECAP_DT        BIT(2)
#define VTD_ECAP_IR        BIT(3)
#define VTD_ECAP_EIM       BIT(4)
#define VTD_ECAP_PT        BIT(6)
#define VTD_ECAP_IRO(ecap) bits_get(ecap, 17, 8) /* in units of 16 bytes */

/* 11.4.4.1: the same bit in GCMD commands it, and in GSTS says that it is so. */
#define VTD_GCMD_TE    (1u << 31)
#define VTD_GCMD_SRTP  (1u << 30) /* one-shot: RTPS comes back */
#define VTD_GCMD_WBF   (1u << 27) /* one-shot: WBFS goes away */
#define VTD_GCMD_QIE   (1u << 26)
#define VTD_GCMD_IRE   (1u << 25)
#define VTD_GCMD_SIRTP (1u << 24) /* one-shot: IRTPS comes back */
#define VTD_GCMD_CFI   (1u << 23)
/* What of GSTS may be written back to GCMD: not the one-shots. */
#define VTD_GSTS_KEEP 0x96ffffffu

#define VTD_RTADDR_TTM   ((uint64_t)3 << 10) /* 0: legacy mode, which is ours */
#define VTD_IQA_DW       BIT(11)             /* descriptors of 256 bits; ours have 128 */
#define VTD_IRTA_EIME    BIT(11)
#define VTD_PMEN_EPM     (1u << 31)
#define VTD_PMEN_PRS     (1u << 0)
#define VTD_FECTL_IM     (1u << 31)
#define VTD_FSTS_PFO     (1u << 0)
#define VTD_FSTS_PPF     (1u << 1)
#define VTD_FSTS_IQE     (1u << 4)
#define VTD_FSTS_ICE     (1u << 5)
#define VTD_FSTS_ITE     (1u << 6)
#define VTD_FSTS_FRI(v)  ((v) >> 8 & 0xffu)
#define VTD_FSTS_CLEAR   (VTD_FSTS_PFO | VTD_FSTS_IQE | VTD_FSTS_ICE | VTD_FSTS_ITE)
#define VTD_QUEUE_ERRORS (VTD_FSTS_IQE | VTD_FSTS_ICE | VTD_FSTS_ITE)

/* 11.4.7.7, a fault recording register: 16 bytes */
#define VTD_FRCD_BYTES      16u
#define VTD_FRCD_SID(hi)    ((uint16_t)(hi))
#define VTD_FRCD_REASON(hi) ((uint8_t)bits_get(hi, 39, 32))
#define VTD_FRCD_READ       BIT(62)
#define VTD_FRCD_F          BIT(63)
#define VTD_FRCD_F_OFFSET   12u /* its dword, which may be written alone */
#define VTD_FRCD_F_CLEAR    (1u << 31)

/* 9.1, 9.3: root and context entries, two words each */
#define VTD_ENTRY_P          BIT(0)
#define VTD_CONTEXT_AW(lvls) ((uint64_t)((lvls)-2)) /* word 1, 2:0: 3 levels = 1, 4 levels = 2 */
#define VTD_CONTEXT_DID(id)  ((uint64_t)(id) << 8)
#define VTD_CONTEXT_ID(hi)   ((uint16_t)bits_get(hi, 23, 8))
#define VTD_ADDRESS          ((BIT(52) - 1) & ~PAGE_MASK)

/* 9.8: second-stage paging entries. Entries that point to tables need R and W as well. */
#define VTD_PTE_READ   BIT(0)
#define VTD_PTE_WRITE  BIT(1)
#define VTD_PTE_ACCESS (VTD_PTE_READ | VTD_PTE_WRITE)
#define VTD_PTE_LARGE  BIT(7)

/* 9.10: interrupt remapping table entry, two words. Delivery mode fixed, edge, physical: all 0. */
#define VTD_IRTE_P             BIT(0)
#define VTD_IRTE_FPD           BIT(1) /* an interrupt that is not present leaves no fault */
#define VTD_IRTE_VECTOR(v)     ((uint64_t)(v) << 16)
#define VTD_IRTE_DST(id)       ((uint64_t)(id) << 32)
#define VTD_IRTE_SVT_SID       ((uint64_t)1 << 18) /* word 1: all 16 bits of the source id are compared */
#define VTD_IRTE_SVT           ((uint64_t)3 << 18)
#define VTD_IRTE_SID(hi)       ((uint16_t)(hi))
#define VTD_IRTE_VECTOR_OF(lo) ((uint8_t)bits_get(lo, 23, 16))
#define VTD_IRTE_DST_OF(lo)    ((uint32_t)bits_get(lo, 63, 32))

/* 6.5.2: descriptors of the invalidation queue, two words */
#define VTD_DESC_CONTEXT     1u
#define VTD_DESC_IOTLB       2u
#define VTD_DESC_IEC         4u
#define VTD_DESC_WAIT        5u
#define VTD_DESC_TYPE(lo)    ((lo)&0xfu)
#define VTD_DESC_GLOBAL      ((uint64_t)1 << 4)
#define VTD_DESC_DOMAIN      ((uint64_t)2 << 4)
#define VTD_DESC_SELECT      ((uint64_t)3 << 4) /* context: one device; IOTLB: pages */
#define VTD_DESC_DID(id)     ((uint64_t)(id) << 16)
#define VTD_CONTEXT_SID(bdf) ((uint64_t)(bdf) << 32)
#define VTD_IOTLB_DW         BIT(6)
#define VTD_IOTLB_DR         BIT(7)
#define VTD_IEC_SELECT       BIT(4)
#define VTD_IEC_INDEX(i)     ((uint64_t)(i) << 32)
#define VTD_WAIT_STATUS      BIT(5)
#define VTD_WAIT_FENCE       BIT(6)
#define VTD_WAIT_DATA(d)     ((uint64_t)(d) << 32)

/* 5.1.5.2: the address of a remappable message */
#define VTD_MESSAGE(index)                                                                                   \
    (IOMMU_MSI_BASE | (uint64_t)((index)&0x7fffu) << 5 | BIT(4) | (uint64_t)((index) >> 15 & 1u) << 2)
