/* Random operations on domains, functions and interrupts against a model, with a unit that keeps whatever it
 * has cached until it is told to forget it: after each operation no function reaches anything that its domain
 * does not have, or that it had; during one, each access goes where it went before or where it is to go. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "drivers/iommu/vtd.h"
#include "tests/host/fake_vtd.h"

#define CHECK(cond)                                                                                          \
    do {                                                                                                     \
        if (!(cond)) {                                                                                       \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);                                       \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

#define DOMAINS   3u
#define FUNCTIONS 4u
#define HANDLES   6u
#define PAGES     3072u /* of the window, 12 MiB around 1 GiB: three sizes of tables meet there */
#define WINDOW    (SIZE_1G - (uint64_t)PAGES / 2 * PAGE_SIZE)
#define OP_BYTES  6u
#define OPS_MAX   40u
#define SAMPLES   6u

static struct fake_vtd f;
static struct iommu iommu;
static struct acpi_dmar dmar;

/* The model. */
static struct {
    bool exists;
    uint64_t want[PAGES]; /* 0: nothing; else host address | flags */
} model[DOMAINS];
static struct iommu_domain domains[DOMAINS];
static int member[FUNCTIONS]; /* domain, or -1 */
static struct {
    bool exists, routed;
    unsigned function;
    uint32_t handle, apic_id;
    uint8_t vector;
} irqs[HANDLES];

/* The operation under way: what its pages will be. */
static int op_domain;
static uint32_t op_first, op_count;
static uint64_t op_at;
static unsigned op_flags;

/* Functions 0 and 1 are behind unit 0, the others behind unit 1. */
static uint16_t bdf_of(unsigned function)
{
    return function < 2 ? (uint16_t)PCI_BDF(1, 0, function) : (uint16_t)PCI_BDF(0, 20 + function, 0);
}

static unsigned unit_of(unsigned function)
{
    return function < 2 ? 0 : 1;
}

static bool goes(unsigned function, uint32_t page, bool write, uint64_t want, bool peek)
{
    uint64_t at, iova = WINDOW + page * PAGE_SIZE + 0x18;
    bool passes = peek ? fake_vtd_peek(&f, unit_of(function), bdf_of(function), iova, write, &at)
                       : fake_vtd_dma(&f, unit_of(function), bdf_of(function), iova, write, &at);
    bool allowed = want & (write ? IOMMU_WRITE : IOMMU_READ);
    return passes == allowed && (!passes || at == (want & ~PAGE_MASK) + 0x18);
}

static uint64_t want_of(unsigned function, uint32_t page)
{
    return member[function] < 0 ? 0 : model[member[function]].want[page];
}

/* Pages that matter: the edges of what was touched, and some others. */
static uint32_t sample(unsigned i)
{
    const uint32_t pages[SAMPLES] = {op_first,     op_first + op_count - 1, op_first + op_count,
                                     op_first - 1, op_first + op_count / 2, PAGES / 2};
    return pages[i] % PAGES;
}

static void check_moment(void *ctx)
{
    (void)ctx;
    for (unsigned function = 0; function < FUNCTIONS; function++)
        for (unsigned i = 0; i < SAMPLES && member[function] == op_domain; i++) {
            uint32_t page = sample(i);
            uint64_t before = want_of(function, page), after = before;
            if (page >= op_first && page < op_first + op_count)
                after = op_flags ? (op_at + (page - op_first) * PAGE_SIZE) | op_flags : 0;
            CHECK(goes(function, page, false, before, true) || goes(function, page, false, after, true));
        }
}

static void check_all(void)
{
    CHECK(!f.breach);
    for (unsigned function = 0; function < FUNCTIONS; function++)
        for (unsigned i = 0; i < SAMPLES; i++) {
            CHECK(goes(function, sample(i), false, want_of(function, sample(i)), false));
            CHECK(goes(function, sample(i), true, want_of(function, sample(i)), false));
        }
    for (unsigned i = 0; i < HANDLES; i++)
        for (unsigned function = 0; function < FUNCTIONS && irqs[i].exists; function++) {
            uint64_t address;
            uint32_t data, to;
            uint8_t vector;
            iommu_irq_message(&iommu, irqs[i].handle, &address, &data);
            if (unit_of(function) != unit_of(irqs[i].function))
                continue;
            bool passes =
                fake_vtd_interrupt(&f, unit_of(function), bdf_of(function), address, data, &to, &vector);
            CHECK(passes == (irqs[i].routed && function == irqs[i].function));
            CHECK(!passes || (to == irqs[i].apic_id && vector == irqs[i].vector));
        }
}

static void map(unsigned d, uint32_t first, uint32_t count, uint64_t at, unsigned flags)
{
    bool taken = false;
    for (uint32_t i = 0; i < count; i++)
        taken |= model[d].want[first + i] != 0;
    op_domain = (int)d, op_first = first, op_count = count, op_at = at, op_flags = flags;
    f.changed = check_moment;
    enum status s = iommu_map(&domains[d], WINDOW + first * PAGE_SIZE, hpa(at), count * PAGE_SIZE, flags);
    f.changed = NULL;
    CHECK(s == STATUS_OK || s == ERR_EXISTS || s == ERR_NO_MEMORY);
    CHECK((s == ERR_EXISTS) == taken || s == ERR_NO_MEMORY);
    for (uint32_t i = 0; i < count && s == STATUS_OK; i++)
        model[d].want[first + i] = (at + i * PAGE_SIZE) | flags;
}

static void unmap(unsigned d, uint32_t first, uint32_t count)
{
    op_domain = (int)d, op_first = first, op_count = count, op_flags = 0;
    f.changed = check_moment;
    enum status s = iommu_unmap(&domains[d], WINDOW + first * PAGE_SIZE, count * PAGE_SIZE);
    f.changed = NULL;
    CHECK(s == STATUS_OK || s == ERR_NO_MEMORY);
    if (s == STATUS_OK)
        memset(&model[d].want[first], 0, count * sizeof(model[d].want[0]));
}

static void life(unsigned d)
{
    char why[100];
    bool used = false;
    if (!model[d].exists) {
        enum status s = iommu_domain_create(&iommu, &domains[d], why, sizeof(why));
        CHECK(s == STATUS_OK || s == ERR_NO_MEMORY);
        model[d].exists = s == STATUS_OK;
        return;
    }
    for (unsigned i = 0; i < FUNCTIONS; i++)
        used |= member[i] == (int)d;
    enum status s = iommu_domain_destroy(&domains[d]);
    CHECK(s == (used ? ERR_EXISTS : STATUS_OK));
    if (!used)
        memset(&model[d], 0, sizeof(model[d]));
}

static void move(unsigned function, unsigned d)
{
    uint16_t bdf = bdf_of(function);
    if (member[function] >= 0) {
        enum status want = member[function] == (int)d ? STATUS_OK : ERR_INVALID;
        CHECK(iommu_detach(&iommu, bdf, bdf, &domains[d]) == want);
        if (want == STATUS_OK)
            member[function] = -1;
        return;
    }
    enum status s = iommu_attach(&iommu, bdf, bdf, &domains[d]);
    CHECK(s == STATUS_OK || s == ERR_NO_MEMORY);
    if (s == STATUS_OK)
        member[function] = (int)d;
}

static void interrupt(const uint8_t *op)
{
    unsigned i = op[1] % HANDLES, function = op[2] % FUNCTIONS;
    uint16_t bdf = bdf_of(irqs[i].exists ? irqs[i].function : function);
    if (!irqs[i].exists) {
        CHECK(iommu_irq_alloc(&iommu, bdf, bdf, 1, &irqs[i].handle) == STATUS_OK);
        irqs[i].exists = true;
        irqs[i].routed = false;
        irqs[i].function = function;
    } else if (op[3] % 4 == 0) {
        CHECK(iommu_irq_free(&iommu, bdf, irqs[i].handle, 1) == STATUS_OK);
        irqs[i].exists = false;
    } else if (op[3] % 4 == 1) {
        CHECK(iommu_irq_mask(&iommu, irqs[i].handle) == STATUS_OK);
        irqs[i].routed = false;
    } else {
        bool good = op[5] >= 16 && op[5] <= 254;
        enum status s = iommu_irq_route(&iommu, irqs[i].handle, op[4], op[5]);
        CHECK(s == (good && (iommu.eim || op[4] < 255) ? STATUS_OK : ERR_RANGE));
        if (s == STATUS_OK) {
            irqs[i].routed = true;
            irqs[i].apic_id = op[4];
            irqs[i].vector = op[5];
        }
    }
}

static void run_op(const uint8_t *op)
{
    unsigned d = op[1] % DOMAINS;
    uint16_t value;
    memcpy(&value, &op[2], sizeof(value));
    uint32_t first = op[0] & 0x80 ? value % 6 * 512 : value % PAGES;
    uint32_t count = op[4] & 0x80 ? (op[4] & 7u) * 512 : op[4] + 1u;
    count = count && count < PAGES - first ? count : PAGES - first;
    op_domain = -1, op_first = first, op_count = count;
    switch (op[0] & 7) {
    case 0:
    case 1:
    case 2: /* aligned as well as the window, or by a page only */
        if (model[d].exists)
            map(d, first, count, 8 * SIZE_1G + (op[5] >> 1) * SIZE_2M + (first + (op[5] & 1)) * PAGE_SIZE,
                op[0] & 8 ? IOMMU_READ : IOMMU_READ | IOMMU_WRITE);
        break;
    case 3:
        if (model[d].exists)
            unmap(d, first, count);
        break;
    case 4:
        life(d);
        break;
    case 5:
        if (model[d].exists)
            move(op[2] % FUNCTIONS, d);
        break;
    case 6:
        interrupt(op);
        break;
    default:
        f.limit = op[1] & 1 ? f.in_use + op[2] % 4 : FAKE_VTD_PAGES; /* memory gets scarce, or not */
        break;
    }
    check_all();
}

static void give_everything_back(uint32_t pages)
{
    for (unsigned i = 0; i < HANDLES; i++)
        if (irqs[i].exists)
            CHECK(iommu_irq_free(&iommu, bdf_of(irqs[i].function), irqs[i].handle, 1) == STATUS_OK);
    for (unsigned i = 0; i < FUNCTIONS; i++)
        if (member[i] >= 0)
            CHECK(iommu_detach(&iommu, bdf_of(i), bdf_of(i), &domains[member[i]]) == STATUS_OK);
    for (unsigned d = 0; d < DOMAINS; d++)
        if (model[d].exists)
            CHECK(iommu_domain_destroy(&domains[d]) == STATUS_OK);
    CHECK(iommu.domains == 0 && iommu.interrupts == 0);
    CHECK(f.in_use == iommu.pages && f.in_use <= pages + 2); /* a context table for each of two buses */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char why[200];
    static const uint8_t port[] = {2, 0};
    if (size < 1 + OP_BYTES)
        return 0;
    uint64_t cap = FAKE_VTD_CAP, ecap = FAKE_VTD_ECAP;
    cap |= (data[0] & 1 ? VTD_CAP_CM : 0) | (data[0] & 2 ? VTD_CAP_RWBF : 0);
    cap &= ~((data[0] & 4 ? VTD_CAP_PSI : 0) | (data[0] & 8 ? VTD_CAP_2M : 0));
    cap &= ~(data[0] & 16 ? (uint64_t)0x3c << 48 : 0); /* small page flushes only */
    ecap |= data[0] & 32 ? VTD_ECAP_C : 0;
    fake_vtd_init(&f, 2, cap, ecap);
    f.env.x2apic = data[0] & 64;
    memset(model, 0, sizeof(model));
    memset(irqs, 0, sizeof(irqs));
    memset(member, 0xff, sizeof(member));
    fake_vtd_add_bridge(&f, PCI_BDF(0, 2, 0), 1, 1);
    fake_vtd_dmar(&f, &dmar);
    dmar.units[0].scopes.first = fake_vtd_scope(&dmar, ACPI_DMAR_BRIDGE, 0, 1, port);
    dmar.units[0].scopes.count = 1;
    CHECK(iommu_init(&iommu, &dmar, &f.config, &f.env, why, sizeof(why)) == STATUS_OK);
    uint32_t pages = f.in_use;
    for (unsigned i = 0; i < OPS_MAX && 1 + (i + 1) * OP_BYTES <= size; i++)
        run_op(data + 1 + i * OP_BYTES);
    give_everything_back(pages);
    CHECK(!f.breach);
    fake_vtd_free(&f);
    return 0;
}
