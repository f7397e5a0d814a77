/* The prompt's `pci`. */
#include "hv/assign/vm_assign.h"
#include "hv/console/prompt.h"
#include "hv/core.h"
#include "hv/lib/fmt.h"

/* One hexadecimal number of at most `digits` digits, up to `max`, followed by `end`. */
static bool parse_hex(const char **at, unsigned digits, uint32_t max, char end, uint32_t *out)
{
    uint32_t value = 0;
    unsigned n = 0;
    for (;; n++, (*at)++) {
        char c = **at;
        unsigned digit = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
                         : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10
                         : c >= 'A' && c <= 'F' ? (unsigned)(c - 'A') + 10
                                                : 16;
        if (digit == 16)
            break;
        value = value * 16 + digit;
        if (n == digits)
            return false;
    }
    *out = value;
    return n > 0 && value <= max && *(*at)++ == end;
}

static bool parse_bdf(const char *word, uint16_t *bdf)
{
    uint32_t bus, device, function;
    if (!parse_hex(&word, 2, 0xff, ':', &bus) || !parse_hex(&word, 2, 0x1f, '.', &device) ||
        !parse_hex(&word, 1, 7, 0, &function))
        return false;
    *bdf = PCI_BDF(bus, device, function);
    return true;
}

/* The VM that has the function, also while it is stopped, or NULL. */
static const char *owner_of(const struct pci_device *dev)
{
    const struct vm_device *d = vm_assign_find(dev->bdf);
    return d ? d->vm->name : NULL;
}

static bool list_next(struct lines *self, char *line, size_t size)
{
    const struct pci_inventory *inv = &core.pci;
    if (self->step >= inv->count)
        return false;
    const struct pci_device *dev = &inv->devices[self->step++];
    pci_describe(inv, dev, owner_of(dev), line, size);
    return true;
}

static bool detail_next(struct lines *self, char *line, size_t size)
{
    const struct pci_device *dev = pci_find(&core.pci, (uint16_t)self->at);
    line[0] = 0;
    while (!line[0])
        if (!dev || !pci_detail(&core.pci, dev, owner_of(dev), self->step++, line, size))
            return false;
    return true;
}

void prompt_run_pci(struct prompt_call *call)
{
    uint16_t bdf;
    if (call->count == 1)
        call->lines = (struct lines){.next = list_next};
    else if (!parse_bdf(call->words[1], &bdf))
        fmt_format(call->reply, sizeof(call->reply), "'%s' is not a PCI address like 01:00.0",
                   call->words[1]);
    else if (!pci_find(&core.pci, bdf))
        fmt_format(call->reply, sizeof(call->reply), "there is nothing at " BDF_FMT ": `pci` lists all",
                   BDF_ARGS(bdf));
    else
        call->lines = (struct lines){.next = detail_next, .at = bdf};
}
