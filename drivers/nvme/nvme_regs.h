/* NVM Express: registers, commands and data structures, as far as an admin queue needs them. Section and
 * figure numbers are of the NVMe Base Specification 1.4. Values in memory are little-endian; offsets in
 * bytes. */
#pragma once

/* ---- controller registers (3.1) ---- */
#define NVME_REG_CAP   0x00u /* 64 bits */
#define NVME_REG_VS    0x08u
#define NVME_REG_INTMS 0x0cu
#define NVME_REG_CC    0x14u
#define NVME_REG_CSTS  0x1cu
#define NVME_REG_AQA   0x24u
#define NVME_REG_ASQ   0x28u   /* 64 bits */
#define NVME_REG_ACQ   0x30u   /* 64 bits */
#define NVME_DOORBELLS 0x1000u /* SQ0 tail, then CQ0 head, 4 << CAP.DSTRD bytes apart */

#define NVME_CAP_TO(cap)     ((uint32_t)((cap) >> 24 & 0xff)) /* in units of 500 ms */
#define NVME_CAP_TO_US       500000u
#define NVME_CAP_DSTRD(cap)  ((uint32_t)((cap) >> 32 & 0xf))
#define NVME_CAP_CSS_NVM     (1ull << 37)
#define NVME_CAP_CSS_CSI     (1ull << 43)
#define NVME_CAP_CSS_NONE    (1ull << 44)
#define NVME_CAP_MPSMIN(cap) ((uint32_t)((cap) >> 48 & 0xf)) /* pages of 2^(12 + n) bytes */

#define NVME_CC_EN        0x1u
#define NVME_CC_CSS_CSI   (6u << 4)
#define NVME_CC_CSS_ADMIN (7u << 4)
#define NVME_CC_IOSQES    (6u << 16) /* entries of 64 bytes */
#define NVME_CC_IOCQES    (4u << 20) /* entries of 16 bytes */

#define NVME_CSTS_RDY 0x1u
#define NVME_CSTS_CFS 0x2u /* controller fatal status */

/* ---- queue entries (4.2, 4.6) ---- */
#define NVME_SQE_BYTES     64u
#define NVME_SQE_NSID      4u
#define NVME_SQE_PRP1      24u
#define NVME_SQE_CDW10     40u
#define NVME_SQE_CDW11     44u
#define NVME_CQE_BYTES     16u
#define NVME_CQE_QUEUE     8u  /* SQ head 15:0, SQ identifier 31:16 */
#define NVME_CQE_STATUS    12u /* command identifier 15:0, phase 16, status 31:17 */
#define NVME_CQE_PHASE     0x10000u
#define NVME_CQE_SC(dword) ((uint16_t)((dword) >> 17 & 0x7ff)) /* code type 10:8, code 7:0 */

/* ---- admin commands (figure 139) ---- */
#define NVME_CMD_IDENTIFY       0x06u
#define NVME_CMD_NS_ATTACHMENT  0x15u
#define NVME_CMD_VIRTUALIZATION 0x1cu

/* Identify (5.15): CDW10 = CNS 7:0, CNTID 31:16. All answers have 4096 bytes. */
#define NVME_IDENTIFY_BYTES           4096u
#define NVME_CNS_CONTROLLER           0x01u
#define NVME_CNS_ALLOCATED_LIST       0x10u /* nsids above CDW1.NSID, ascending, 0 ends */
#define NVME_CNS_ALLOCATED            0x11u /* a namespace, attached or not */
#define NVME_CNS_ATTACHED_CONTROLLERS 0x12u /* controllers from CNTID up that have CDW1.NSID */
#define NVME_CNS_PRIMARY              0x14u
#define NVME_CNS_SECONDARIES          0x15u
#define NVME_CDW10_HIGH(value)        ((uint32_t)(value) << 16)

#define NVME_ID_SERIAL       4u  /* 20 bytes of ASCII */
#define NVME_ID_MODEL        24u /* 40 */
#define NVME_ID_FIRMWARE     64u /* 8 */
#define NVME_ID_CNTLID       78u
#define NVME_ID_OACS         256u
#define NVME_OACS_NAMESPACES 0x0008u /* namespace management and attachment */

#define NVME_NS_NSZE       0u  /* 64 bits, in blocks */
#define NVME_NS_FLBAS      26u /* format in use: 3:0, and 6:5 above them */
#define NVME_NS_NMIC       30u
#define NVME_NMIC_SHARED   0x01u
#define NVME_NS_LBAF       128u                               /* formats of 4 bytes */
#define NVME_LBADS(format) ((uint32_t)(format) >> 16 & 0xffu) /* log2 of the block size */

/* Controller list (4.9): a count, then identifiers, 16 bits each. */
#define NVME_LIST_MAX 2047u
/* Namespace list (4.10): 32 bits each. */
#define NVME_NSID_LIST_MAX 1024u

/* Primary controller capabilities (figure 249): the fields for vectors lie 32 bytes behind those for queues.
 */
#define NVME_PC_CNTLID  0u
#define NVME_PC_CRT     4u
#define NVME_CRT_VQ     0x1u
#define NVME_CRT_VI     0x2u
#define NVME_PC_QUEUES  32u
#define NVME_PC_VECTORS 64u
#define NVME_PC_FRT     0u  /* flexible resources in total, 32 bits */
#define NVME_PC_RFAP    8u  /* of them allocated to the primary */
#define NVME_PC_FRSM    12u /* the most of them for a secondary controller */
#define NVME_PC_GRAN    14u /* preferred granularity */

/* Secondary controller list (figure 250) */
#define NVME_SC_COUNT   0u
#define NVME_SC_MAX     127u
#define NVME_SC_ENTRIES 32u
#define NVME_SC_BYTES   32u
#define NVME_SC_SCID    0u
#define NVME_SC_PCID    2u
#define NVME_SC_STATE   4u
#define NVME_SC_ONLINE  0x1u
#define NVME_SC_VFN     8u /* 1 based; 0: not a VF */
#define NVME_SC_NVQ     10u
#define NVME_SC_NVI     12u

/* Virtualization Management (5.22): CDW10 = action 3:0, resource type 10:8, controller 31:16; CDW11 = count
 */
#define NVME_VM_PRIMARY 0x1u
#define NVME_VM_OFFLINE 0x7u /* and takes all flexible resources away */
#define NVME_VM_ASSIGN  0x8u
#define NVME_VM_ONLINE  0x9u
#define NVME_VM_VQ      0x000u
#define NVME_VM_VI      0x100u

/* Namespace Attachment (5.12): CDW10 = 0 attach, 1 detach; data: a controller list */
#define NVME_NS_ATTACH 0u
#define NVME_NS_DETACH 1u

/* Status codes with their type, as NVME_CQE_SC() gives them (figures 127 to 131) */
#define NVME_STATUS_INVALID_OPCODE    0x001u
#define NVME_STATUS_INVALID_FIELD     0x002u
#define NVME_STATUS_INVALID_NAMESPACE 0x00bu
#define NVME_STATUS_NS_ATTACHED       0x118u
#define NVME_STATUS_NS_PRIVATE        0x119u
#define NVME_STATUS_NS_NOT_ATTACHED   0x11au
#define NVME_STATUS_CONTROLLER_LIST   0x11cu
#define NVME_STATUS_CONTROLLER_ID     0x11fu
#define NVME_STATUS_SECONDARY_STATE   0x120u
#define NVME_STATUS_RESOURCE_COUNT    0x121u
#define NVME_STATUS_RESOURCE_ID       0x122u
