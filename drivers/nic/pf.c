#include "drivers/nic/pf.h"
#include "drivers/nic/igb_pf.h"

static const struct pf_ops *const drivers[] = {&igb_pf_ops};

const struct pf_ops *pf_find(uint16_t vendor, uint16_t device)
{
    for (size_t i = 0; i < ARRAY_SIZE(drivers); i++)
        if (drivers[i]->match(vendor, device))
            return drivers[i];
    return NULL;
}
