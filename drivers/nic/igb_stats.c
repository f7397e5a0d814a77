#include "drivers/nic/igb_pf.h"

static uint32_t read_counter(const struct pf *pf, uint32_t vf, enum igb_counter counter)
{
    const uint32_t offsets[IGB_COUNTERS] = {IGB_PFVFGPRC(vf), IGB_PFVFGPTC(vf), IGB_PFVFGORC(vf),
                                            IGB_PFVFGOTC(vf)};
    return igb_read(pf, offsets[counter]);
}

void igb_stats_sample(struct pf *pf, uint32_t vf)
{
    struct igb_vf *v = &((struct igb *)pf->priv)->vf[vf];
    for (unsigned i = 0; i < IGB_COUNTERS; i++) {
        uint32_t now = read_counter(pf, vf, (enum igb_counter)i);
        uint32_t more = now - v->last[i]; /* modulo 2^32: they wrap */
        /* Sampled this often, half the range cannot have passed: a reset has cleared the counter. */
        v->total[i] += more <= INT32_MAX ? more : now;
        v->last[i] = now;
    }
}

void igb_stats_begin(struct pf *pf, uint32_t vf)
{
    struct igb_vf *v = &((struct igb *)pf->priv)->vf[vf];
    for (unsigned i = 0; i < IGB_COUNTERS; i++) {
        v->total[i] = 0;
        v->last[i] = read_counter(pf, vf, (enum igb_counter)i);
    }
}
