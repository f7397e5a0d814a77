#include "drivers/nic/igb_pf.h"
#include "hv/lib/bdf.h"
#include "hv/lib/fmt.h"

/* Waits, in microseconds: what the data sheets ask for, or Linux's igb grants. */
#define MASTER_WAIT    80000u
#define QUIET_WAIT     10000u
#define RESET_WAIT     10000u
#define NVM_WAIT       100000u
#define PHY_WAIT       32000u
#define SEMAPHORE_WAIT 100000u
#define STEP           100u

/* Waits until (register & mask) == value. False: it did not come in time. */
static bool await(struct pf *pf, uint32_t offset, uint32_t mask, uint32_t value, uint32_t us)
{
    for (uint32_t waited = 0; (igb_read(pf, offset) & mask) != value; waited += STEP) {
        if (waited >= us)
            return false;
        pf->env->delay_us(pf->env->ctx, STEP);
    }
    return true;
}

/* The PHY is shared with firmware and the card's other ports. A semaphore that nobody gives back (its owner
 * has died) does not keep the link down: false is a warning. */
static bool take_phy(struct pf *pf, uint32_t bit)
{
    for (uint32_t waited = 0; waited < SEMAPHORE_WAIT; waited += STEP) {
        if (!(igb_read(pf, IGB_SWSM) & IGB_SWSM_SMBI)) {
            igb_write(pf, IGB_SWSM, igb_read(pf, IGB_SWSM) | IGB_SWSM_SWESMBI);
            uint32_t users = igb_read(pf, IGB_SW_FW_SYNC);
            bool firmware_agrees = igb_read(pf, IGB_SWSM) & IGB_SWSM_SWESMBI;
            bool available = firmware_agrees && !(users & (bit | bit << IGB_SW_FW_SYNC_FW_SHIFT));
            if (available)
                igb_write(pf, IGB_SW_FW_SYNC, users | bit);
            igb_write(pf, IGB_SWSM, 0);
            if (available)
                return true;
        }
        pf->env->delay_us(pf->env->ctx, STEP);
    }
    return false;
}

static void give_phy(struct pf *pf, uint32_t bit)
{
    await(pf, IGB_SWSM, IGB_SWSM_SMBI, 0, SEMAPHORE_WAIT);
    igb_write(pf, IGB_SW_FW_SYNC, igb_read(pf, IGB_SW_FW_SYNC) & ~bit);
    igb_write(pf, IGB_SWSM, 0);
}

/* Set Link Up alone does not bring a link: the PHY must negotiate. poll() sees the outcome. */
static void start_link(struct pf *pf)
{
    const struct igb *igb = pf->priv;
    uint32_t bit = IGB_SW_FW_SYNC_PHY(IGB_STATUS_PORT(igb_read(pf, IGB_STATUS)));
    uint32_t ctrl = igb_read(pf, IGB_CTRL);
    ctrl &= ~(IGB_CTRL_FRCSPD | IGB_CTRL_FRCDPX | IGB_CTRL_GIO_MASTER_DISABLE);
    igb_write(pf, IGB_CTRL, ctrl | IGB_CTRL_SLU | IGB_CTRL_VME);
    if (igb->i350)
        igb_write(pf, IGB_PHPM, igb_read(pf, IGB_PHPM) & ~IGB_PHPM_GO_LINKD);
    bool taken = take_phy(pf, bit);
    igb_write(pf, IGB_MDIC, IGB_MDIC_WRITE(IGB_PHY_ADDRESS, IGB_PHY_BMCR, IGB_PHY_BMCR_RESTART));
    if (!await(pf, IGB_MDIC, IGB_MDIC_READY, IGB_MDIC_READY, PHY_WAIT) ||
        igb_read(pf, IGB_MDIC) & IGB_MDIC_ERROR)
        log_line(LOG_WARN, pf->name, "the PHY does not answer (MDIC %08x); there may be no link",
                 igb_read(pf, IGB_MDIC));
    if (taken)
        give_phy(pf, bit);
    else
        log_line(LOG_WARN, pf->name, "the PHY's semaphore was not free; used without it");
}

static enum status reset(struct pf *pf, char *why, size_t size)
{
    igb_write(pf, IGB_CTRL, igb_read(pf, IGB_CTRL) | IGB_CTRL_GIO_MASTER_DISABLE);
    if (!await(pf, IGB_STATUS, IGB_STATUS_GIO_MASTER_ENABLE, 0, MASTER_WAIT))
        log_line(LOG_WARN, pf->name, "DMA of an earlier driver does not end; reset all the same");
    igb_write(pf, IGB_IMC, ~0u);
    igb_write(pf, IGB_EIMC, ~0u);
    igb_write(pf, IGB_RCTL, 0);
    igb_write(pf, IGB_TCTL, IGB_TCTL_PSP);
    pf->env->delay_us(pf->env->ctx, QUIET_WAIT); /* packets under way end */
    igb_write(pf, IGB_CTRL, igb_read(pf, IGB_CTRL) | IGB_CTRL_RST);
    pf->env->delay_us(pf->env->ctx, RESET_WAIT);
    if (!await(pf, IGB_CTRL, IGB_CTRL_RST, 0, NVM_WAIT)) {
        fmt_format(why, size, "the card at " BDF_FMT " does not come out of its reset (CTRL %08x)",
                   BDF_ARGS(pf->bdf), igb_read(pf, IGB_CTRL));
        return ERR_NOT_FOUND;
    }
    /* The next two fail on cards without EEPROM, which work nevertheless. */
    await(pf, IGB_EECD, IGB_EECD_AUTO_RD, IGB_EECD_AUTO_RD, NVM_WAIT);
    uint32_t done = IGB_EEMNGCTL_CFG_DONE(IGB_STATUS_PORT(igb_read(pf, IGB_STATUS)));
    await(pf, IGB_EEMNGCTL, done, done, NVM_WAIT);
    igb_write(pf, IGB_IMC, ~0u);
    igb_write(pf, IGB_EIMC, ~0u);
    return STATUS_OK;
}

enum status igb_start_card(struct pf *pf, char *why, size_t size)
{
    if (pf->bar.size < IGB_BAR_SIZE || igb_read(pf, IGB_STATUS) == ~0u) {
        fmt_format(why, size, "the card at " BDF_FMT " does not answer (BAR 0 of %u KiB)", BDF_ARGS(pf->bdf),
                   (unsigned)(pf->bar.size / 1024));
        return ERR_NOT_FOUND;
    }
    enum status status = reset(pf, why, size);
    if (status != STATUS_OK)
        return status;
    if (igb_read(pf, IGB_CTRL_EXT) & IGB_CTRL_EXT_LINK_MODE) {
        fmt_format(why, size, "the card at " BDF_FMT " has no copper PHY; only those are supported",
                   BDF_ARGS(pf->bdf));
        return ERR_UNSUPPORTED;
    }
    igb_write(pf, IGB_GPIE, IGB_GPIE_MULTIPLE_MSIX | IGB_GPIE_NSICR | IGB_GPIE_EIAME | IGB_GPIE_PBA);
    igb_switch_init(pf);
    igb_write(pf, IGB_RCTL, IGB_RCTL_EN | IGB_RCTL_LPE | IGB_RCTL_BAM | IGB_RCTL_VFE | IGB_RCTL_SECRC);
    igb_write(pf, IGB_TCTL, IGB_TCTL_EN | IGB_TCTL_PSP | IGB_TCTL_CT | IGB_TCTL_COLD);
    start_link(pf);
    return STATUS_OK;
}
