/* Registers of the Intel 82576 and I350 in BAR 0, as far as the PF driver uses them, and the mailbox messages
 * of their VFs' drivers. Names are the data sheets'; offsets and bits were checked against Linux's igb
 * and QEMU's model. Offsets in bytes; all registers have 32 bits. */
#pragma once

#include "hv/lib/bits.h"

#define IGB_BAR_SIZE 0x20000u /* at least */

#define IGB_CTRL       0x0000u
#define IGB_STATUS     0x0008u
#define IGB_EECD       0x0010u
#define IGB_CTRL_EXT   0x0018u
#define IGB_MDIC       0x0020u
#define IGB_IMC        0x00d8u
#define IGB_RCTL       0x0100u
#define IGB_TCTL       0x0400u
#define IGB_PHPM       0x0e14u /* I350: PHY power management */
#define IGB_EEMNGCTL   0x1010u
#define IGB_GPIE       0x1514u
#define IGB_EIMC       0x1528u
#define IGB_QDE        0x2408u /* drop, rather than block the others, when a queue has no buffers */
#define IGB_DTXCTL     0x3590u
#define IGB_RLPML      0x5004u
#define IGB_MRQC       0x5818u
#define IGB_VT_CTL     0x581cu
#define IGB_RPLOLR     0x5af0u /* what happens to replicated packets */
#define IGB_SWSM       0x5b50u
#define IGB_SW_FW_SYNC 0x5b5cu

/* The mailboxes. VMBMEM is shared with the VF; the two control registers are each side's own view. */
#define IGB_VMBMEM(vf)     (0x0800u + 64u * (vf))
#define IGB_P2VMAILBOX(vf) (0x0c00u + 4u * (vf))
#define IGB_MBVFICR        0x0c80u
#define IGB_VFLRE          0x0c88u
#define IGB_VFRE           0x0c8cu
#define IGB_VFTE           0x0c90u

/* The switch. A pool has the number of its VF. */
#define IGB_DTXSWC     0x3500u /* 82576 */
#define IGB_TXSWC      0x5accu /* I350 */
#define IGB_WVBR       0x3554u /* bit n, n + 8: pool n's queue sent with a wrong sender. Reading clears it */
#define IGB_VMVIR(vf)  (0x3700u + 4u * (vf))
#define IGB_MTA(i)     (0x5200u + 4u * (i))
#define IGB_VFTA(i)    (0x5600u + 4u * (i))
#define IGB_UTA(i)     (0xa000u + 4u * (i))
#define IGB_RAL(i)     ((i) < 16u ? 0x5400u + 8u * (i) : 0x54e0u + 8u * ((i)-16u))
#define IGB_RAH(i)     (IGB_RAL(i) + 4u)
#define IGB_VMOLR(vf)  (0x5ad0u + 4u * (vf))
#define IGB_VLVF(i)    (0x5d00u + 4u * (i))
#define IGB_DVMOLR(vf) (0xc038u + 64u * (vf)) /* I350: VLAN and CRC stripping */
#define IGB_RTTDQSEL   0x3604u                /* 82576: the queue that RTTBCNRC means */
#define IGB_RTTBCNRM   0x3690u
#define IGB_RTTBCNRC   0x36b0u

/* Counters of a pool: they wrap, and are not cleared by reading. Packets between VFs are in them. */
#define IGB_PFVFGPRC(vf) (0x10010u + 0x100u * (vf)) /* packets received */
#define IGB_PFVFGPTC(vf) (0x10014u + 0x100u * (vf)) /* packets sent */
#define IGB_PFVFGORC(vf) (0x10018u + 0x100u * (vf)) /* bytes received */
#define IGB_PFVFGOTC(vf) (0x10034u + 0x100u * (vf)) /* bytes sent */

/* How many there are. */
#define IGB_POOLS        8u
#define IGB_RARS_82576   24u
#define IGB_RARS_I350    32u
#define IGB_TABLE_DWORDS 128u /* MTA, VFTA, UTA */
#define IGB_VLVFS        32u
#define IGB_MAIL_DWORDS  16u

#define IGB_CTRL_GIO_MASTER_DISABLE (1u << 2)
#define IGB_CTRL_SLU                (1u << 6)
#define IGB_CTRL_FRCSPD             (1u << 11)
#define IGB_CTRL_FRCDPX             (1u << 12)
#define IGB_CTRL_RST                (1u << 26)
#define IGB_CTRL_VME                (1u << 30) /* VLAN insertion by descriptor works */

#define IGB_STATUS_LU                (1u << 1)
#define IGB_STATUS_PORT(status)      ((status) >> 2 & 3u)
#define IGB_STATUS_SPEED(status)     ((status) >> 6 & 3u) /* 0: 10, 1: 100, else 1000 Mb/s */
#define IGB_STATUS_GIO_MASTER_ENABLE (1u << 19)

#define IGB_EECD_AUTO_RD            (1u << 9)
#define IGB_CTRL_EXT_PFRSTD         (1u << 14)
#define IGB_CTRL_EXT_LINK_MODE      (3u << 22) /* 0: copper */
#define IGB_PHPM_GO_LINKD           (1u << 5)
#define IGB_EEMNGCTL_CFG_DONE(port) (1u << (18u + (port)))

#define IGB_MDIC_WRITE(phy, reg, data) (1u << 26 | (uint32_t)(phy) << 21 | (uint32_t)(reg) << 16 | (data))
#define IGB_MDIC_READY                 (1u << 28)
#define IGB_MDIC_ERROR                 (1u << 30)
#define IGB_PHY_ADDRESS                1u
#define IGB_PHY_BMCR                   0u      /* IEEE 802.3, 22.2.4.1 */
#define IGB_PHY_BMCR_RESTART           0x1340u /* negotiate anew: full duplex, 1000 Mb/s at best, powered up */

/* Who may use the PHY: a semaphore for the register of semaphores, and a bit there for us and for firmware.
 */
#define IGB_SWSM_SMBI            (1u << 0) /* set by reading */
#define IGB_SWSM_SWESMBI         (1u << 1)
#define IGB_SW_FW_SYNC_PHY(port) ((port) < 2u ? 2u << (port) : 0x20u << ((port)-2u))
#define IGB_SW_FW_SYNC_FW_SHIFT  16u

#define IGB_RCTL_EN    (1u << 1)
#define IGB_RCTL_LPE   (1u << 5)
#define IGB_RCTL_BAM   (1u << 15)
#define IGB_RCTL_VFE   (1u << 18)
#define IGB_RCTL_SECRC (1u << 26)

#define IGB_TCTL_EN   (1u << 1)
#define IGB_TCTL_PSP  (1u << 3)
#define IGB_TCTL_CT   (15u << 4)
#define IGB_TCTL_COLD (0x40u << 12)

#define IGB_GPIE_NSICR         (1u << 0)
#define IGB_GPIE_MULTIPLE_MSIX (1u << 4) /* without it a VF sends no interrupt */
#define IGB_GPIE_EIAME         (1u << 30)
#define IGB_GPIE_PBA           (1u << 31)

#define IGB_DTXCTL_VLAN_ADDED (1u << 3) /* 82576: the switch sees the tags that the card inserts */
#define IGB_MRQC_VMDQ         3u
#define IGB_VT_CTL_NO_DEFAULT (1u << 29)
#define IGB_VT_CTL_REPLICATE  (1u << 30)
#define IGB_RPLOLR_STRVLAN    (1u << 30)
#define IGB_MAX_FRAME         9728u
#define IGB_ALL_QUEUES        0xffffu

#define IGB_TXSWC_MAC_SPOOF(vf)  (1u << (vf))
#define IGB_TXSWC_VLAN_SPOOF(vf) (1u << (8u + (vf)))
#define IGB_TXSWC_LOOPBACK       (1u << 31)

#define IGB_RAH_POOL(vf) (1u << (18u + (vf)))
#define IGB_RAH_AV       (1u << 31)

#define IGB_VLVF_POOL_SHIFT 12u
#define IGB_VLVF_ENABLE     (1u << 31)
#define IGB_VMVIR_ALWAYS    (1u << 30)

#define IGB_VMOLR_LPE     (1u << 16)
#define IGB_VMOLR_AUPE    (1u << 24) /* untagged packets */
#define IGB_VMOLR_ROMPE   (1u << 25) /* multicast in MTA */
#define IGB_VMOLR_ROPE    (1u << 26) /* unicast in UTA */
#define IGB_VMOLR_BAM     (1u << 27)
#define IGB_VMOLR_MPME    (1u << 28) /* any multicast */
#define IGB_VMOLR_STRVLAN (1u << 30)
#define IGB_VMOLR_STRCRC  (1u << 31)

#define IGB_DVMOLR_HIDEVLAN (1u << 29)
#define IGB_DVMOLR_STRVLAN  (1u << 30)
#define IGB_DVMOLR_STRCRC   (1u << 31)

#define IGB_RTTBCNRC_ENABLE    (1u << 31)
#define IGB_RTTBCNRC_INT_SHIFT 14u
#define IGB_RTTBCNRC_INT_MAX   0x3fffu
#define IGB_RTTBCNRM_JUMBO     0x14u

#define IGB_P2V_STS  (1u << 0) /* message for the VF */
#define IGB_P2V_ACK  (1u << 1) /* the VF's message was read */
#define IGB_P2V_VFU  (1u << 2) /* the VF has the buffer */
#define IGB_P2V_PFU  (1u << 3) /* we have: can be set while VFU is clear */
#define IGB_P2V_RVFU (1u << 4) /* take VFU away */

#define IGB_V2P_REQ   (1u << 0)
#define IGB_V2P_ACK   (1u << 1)
#define IGB_V2P_VFU   (1u << 2)
#define IGB_V2P_PFU   (1u << 3)
#define IGB_V2P_PFSTS (1u << 4) /* these two and RSTD: cleared by reading */
#define IGB_V2P_PFACK (1u << 5)
#define IGB_V2P_RSTI  (1u << 6) /* the PF is in reset */
#define IGB_V2P_RSTD  (1u << 7) /* it has ended */

#define IGB_MBVFICR_REQ(cause) ((cause)&0xffu)
#define IGB_MBVFICR_ACK_SHIFT  16u

/* Messages. */
#define IGB_MAIL_TYPE(word) ((word)&0xffffu)
#define IGB_MAIL_INFO(word) ((word) >> 16 & 0xffu)
#define IGB_MAIL_INFO_SHIFT 16u
#define IGB_MAIL_CTS        (1u << 29) /* clear to send: the VF may ask for things */
#define IGB_MAIL_NACK       (1u << 30)
#define IGB_MAIL_ACK        (1u << 31)
#define IGB_MAIL_PING       0x100u /* from the PF: look at the link */

enum igb_mail {
    IGB_MAIL_RESET = 1,
    IGB_MAIL_SET_MAC = 2,   /* info: enum igb_mail_mac; dwords 1, 2: address */
    IGB_MAIL_MULTICAST = 3, /* info: how many; 16-bit hashes from dword 1 on */
    IGB_MAIL_VLAN = 4,      /* info: 1 adds; dword 1: VLAN */
    IGB_MAIL_LPE = 5,       /* dword 1: longest frame, without VLAN tag */
    IGB_MAIL_PROMISC = 6,   /* info: IGB_MAIL_PROMISC_* */
};
enum igb_mail_mac { IGB_MAIL_MAC_SET, IGB_MAIL_MAC_CLEAR, IGB_MAIL_MAC_ADD };
#define IGB_MAIL_PROMISC_UNICAST   1u
#define IGB_MAIL_PROMISC_MULTICAST 2u
#define IGB_MAIL_HASHES            30u
#define IGB_MAIL_OVERFLOW          0x80u /* in the info of MULTICAST */
#define IGB_HASH_MASK              0xfffu
