/* boot_info_check, and the pure steps by which the loader makes a boot_info: memory map, address space,
 * clocks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "arch/x86/hostpt.h"
#include "arch/x86/layout.h"
#include "boot/boot_clock.h"
#include "boot/boot_info.h"
#include "boot/handover.h"
#include "boot/memmap.h"

/* ---- boot_info_check ---- */

static struct boot_info info;

static int setup_info(void **state)
{
    memset(&info, 0, sizeof(info));
    info.magic = BOOT_INFO_MAGIC;
    info.version = BOOT_INFO_VERSION;
    info.size = sizeof(info);
    const struct boot_region regions[] = {
        {0x0, 0x9f000, BOOT_REGION_RESERVED, 0},     {0x9f000, 0x1000, BOOT_REGION_BULKHEAD, 0},
        {0x100000, 0xf00000, BOOT_REGION_FREE, 0},   {0x1000000, 0x800000, BOOT_REGION_BULKHEAD, 0},
        {0x1800000, 0x800000, BOOT_REGION_IMAGE, 0}, {0x2000000, 0x40000000, BOOT_REGION_FREE, 0},
    };
    memcpy(info.regions, regions, sizeof(regions));
    info.region_count = ARRAY_SIZE(regions);
    info.core_hpa = 0x1700000;
    info.core_size = 0x20000;
    info.pool_hpa = 0x1000000;
    info.pool_size = LAYOUT_POOL_MIN;
    info.pool_used = 0x14000;
    info.cr3 = 0x1005000;
    info.trampoline_hpa = 0x9f000;
    info.tsc_hz = 200000000;
    info.tsc_source = BOOT_TSC_MEASURED;
    info.cpu_count = 2;
    info.cpus[0] = (struct boot_cpu){.apic_id = 0, .is_bsp = 1};
    info.cpus[1] = (struct boot_cpu){.apic_id = 2};
    info.config.vm_count = 1;
    info.kernels[0] = (struct boot_file){0x1800000, 0x123456};
    info.initrds[0] = (struct boot_file){0x1a00000, 0x600000};
    return 0;
}

static void expect(const char *text)
{
    const char *why = "unset";
    enum status s = boot_info_check(&info, &why);
    if (text ? s != ERR_INVALID || !why || !strstr(why, text) : s != STATUS_OK || why)
        fail_msg("wanted \"%s\", got %s: %s", text ? text : "ok", status_name(s), why ? why : "-");
    setup_info(NULL);
}

static void test_info_good(void **state)
{
    expect(NULL);
    info.initrds[0] = (struct boot_file){0, 0};
    expect(NULL);
    info.config.vms[0].module_count = 1;
    info.modules[0][0] = info.initrds[0];
    expect(NULL);
    info.config.vms[0].disk_count = 1;
    info.disks[0][0] = (struct boot_file){0x1a00000, 0x200};
    expect(NULL);
    info.framebuffer = (struct boot_framebuffer){.hpa = 0xe0000000, .width = 800, .stride = 800, .pixel = 1};
    expect(NULL);
    info.region_count = BOOT_MAX_REGIONS;
    for (unsigned i = 6; i < BOOT_MAX_REGIONS; i++)
        info.regions[i] = (struct boot_region){.base = 0x80000000 + i * 0x2000ull, .size = 0x1000, .kind = 3};
    expect(NULL);
}

static void test_info_header(void **state)
{
    info.magic++;
    expect("same version");
    info.version++;
    expect("same version");
    info.size--;
    expect("same version");
    info.tsc_hz = 999999;
    expect("TSC");
    info.tsc_source = BOOT_TSC_MEASURED + 1;
    expect("TSC");
    info.framebuffer.pixel = BOOT_PIXEL_BGRX + 1;
    expect("framebuffer");
    info.framebuffer = (struct boot_framebuffer){.width = 800, .stride = 799, .pixel = BOOT_PIXEL_BGRX};
    expect("framebuffer");
}

static void test_info_regions(void **state)
{
    info.region_count = 0;
    expect("number of memory regions");
    info.region_count = BOOT_MAX_REGIONS + 1;
    expect("number of memory regions");
    info.regions[5].size = 0;
    expect("whole pages");
    info.regions[5].base++;
    expect("whole pages");
    info.regions[5].size++;
    expect("whole pages");
    info.regions[5].size = 0xfffffffffffff000ull;
    expect("whole pages");
    info.regions[2].size += 0x1000;
    expect("overlap or are not sorted");
    info.regions[5].base = 0;
    expect("overlap or are not sorted");
    info.regions[5].kind = BOOT_REGION_RESERVED + 1;
    expect("unknown kind");
    info.regions[0].kind = BOOT_REGION_FREE;
    expect("below 1 MiB");
}

static void test_info_cpus(void **state)
{
    info.cpu_count = 0;
    expect("number of CPUs");
    info.cpu_count = BOOT_MAX_CPUS + 1;
    expect("number of CPUs");
    info.cpus[0].is_bsp = 0;
    expect("must be the BSP");
    info.cpus[1].is_bsp = 1;
    expect("must be the BSP");
    info.cpus[1].apic_id = 0;
    expect("same APIC ID");
}

static void test_info_own_memory(void **state)
{
    info.core_size = 0;
    expect("core's image");
    info.core_hpa++;
    expect("core's image");
    info.core_size = 0x100001;
    expect("core's image");
    info.core_size = 0x101000; /* one page beyond its region */
    expect("core's image");
    info.core_hpa = 0x200000; /* in FREE memory */
    expect("core's image");
    info.core_size = 0xfffffffffffff000ull;
    expect("core's image");
    info.pool_size += 0x1000; /* as large as the loader wants */
    expect(NULL);
    info.pool_size = 0x801000; /* one page beyond its region */
    expect("pool is not in");
    info.pool_size = LAYOUT_POOL_MIN - 0x1000;
    expect("pool is not in");
    info.pool_size = LAYOUT_POOL_MAX + 0x1000;
    expect("pool is not in");
    info.pool_size += 0x10;
    expect("pool is not in");
    info.pool_hpa = 0x3000000;
    expect("pool is not in");
    info.pool_used = LAYOUT_POOL_MIN + 0x1000;
    expect("more of the pool");
    info.pool_used++;
    expect("more of the pool");
    info.cr3 = 0x1014000;
    expect("page tables are not");
    info.cr3 = 0xfff000;
    expect("page tables are not");
    info.cr3++;
    expect("page tables are not");
    info.regions[5].base = 0xfff00000;
    info.regions[5].kind = BOOT_REGION_BULKHEAD;
    info.pool_hpa = 0xfff00000;
    expect("above 4 GiB");
    info.blackbox_hpa = info.pool_hpa;
    expect(NULL);
    info.blackbox_hpa = info.pool_hpa + 1;
    expect("black box");
    info.blackbox_hpa = info.regions[2].base;
    expect("black box");
    info.trampoline_hpa = 0x1000000;
    expect("trampoline");
    info.trampoline_hpa = 0x9e000;
    expect("trampoline");
    info.trampoline_hpa++;
    expect("trampoline");
}

static void test_info_files(void **state)
{
    info.config.vm_count = 0;
    expect("number of VMs");
    info.config.vm_count = CONFIG_MAX_VMS + 1;
    expect("number of VMs");
    info.kernels[0].size = 0;
    expect("a kernel is not");
    info.kernels[0].hpa = 0x1000000;
    expect("a kernel is not");
    info.kernels[0].hpa++;
    expect("a kernel is not");
    info.kernels[0].size = UINT64_MAX;
    expect("a kernel is not");
    info.initrds[0].size++; /* needs the page behind the region */
    expect("an initrd is not");
    info.config.vms[0].module_count = CONFIG_MAX_MODULES + 1;
    expect("number of modules");
    info.config.vms[0].module_count = 1; /* and no file */
    expect("a module is not");
    info.config.vms[0].module_count = 2;
    info.modules[0][0] = info.initrds[0];
    info.modules[0][1] = (struct boot_file){0x1a00800, 1};
    expect("a module is not");
    info.config.vms[0].disk_count = CONFIG_MAX_DISKS + 1;
    expect("number of disks");
    info.config.vms[0].disk_count = 1;
    info.disks[0][0] = (struct boot_file){0x1a00000, 0x201}; /* no whole sectors */
    expect("a disk is not");
    info.config.vms[0].disk_count = 1;
    info.disks[0][0] = (struct boot_file){0x1000000, 0x200};
    expect("a disk is not");
    info.config.vm_count = 2; /* the second has no kernel */
    expect("a kernel is not");
}

/* ---- memmap ---- */

static struct boot_region regions[8];
static struct memmap map;

static int setup_map(void **state)
{
    memset(regions, 0xee, sizeof(regions));
    map = (struct memmap){.regions = regions, .capacity = ARRAY_SIZE(regions)};
    return 0;
}

static void set(uint64_t base, uint64_t size, enum boot_region_kind kind)
{
    assert_int_equal(memmap_set(&map, base, size, kind), STATUS_OK);
}

struct want {
    uint64_t base, end;
    uint32_t kind;
};

#define EXPECT_MAP(...)                                                                                      \
    do {                                                                                                     \
        const struct want want[] = {__VA_ARGS__};                                                            \
        assert_int_equal(map.count, ARRAY_SIZE(want));                                                       \
        for (size_t w = 0; w < ARRAY_SIZE(want); w++) {                                                      \
            assert_int_equal(regions[w].base, want[w].base);                                                 \
            assert_int_equal(regions[w].base + regions[w].size, want[w].end);                                \
            assert_int_equal(regions[w].kind, want[w].kind);                                                 \
        }                                                                                                    \
    } while (0)

static void test_map_set(void **state)
{
    set(0x5000, 0x1000, 0);
    set(0x1000, 0x1000, 0);
    EXPECT_MAP({0x1000, 0x2000, 0}, {0x5000, 0x6000, 0});
    set(0x2000, 0x3000, 0); /* merges both */
    EXPECT_MAP({0x1000, 0x6000, 0});
    set(0x3000, 0x1000, 1); /* splits */
    EXPECT_MAP({0x1000, 0x3000, 0}, {0x3000, 0x4000, 1}, {0x4000, 0x6000, 0});
    set(0x3000, 0x1000, 2); /* replaces exactly */
    EXPECT_MAP({0x1000, 0x3000, 0}, {0x3000, 0x4000, 2}, {0x4000, 0x6000, 0});
    set(0x2000, 0x3000, 3); /* covers one, cuts two */
    EXPECT_MAP({0x1000, 0x2000, 0}, {0x2000, 0x5000, 3}, {0x5000, 0x6000, 0});
    set(0x0, 0x2000, 3); /* grows to the left over a region */
    EXPECT_MAP({0x0, 0x5000, 3}, {0x5000, 0x6000, 0});
    set(0x1000, 0x1000, 3); /* inside its own kind */
    EXPECT_MAP({0x0, 0x5000, 3}, {0x5000, 0x6000, 0});
    set(0x4000, 0x8000, 0);
    EXPECT_MAP({0x0, 0x4000, 3}, {0x4000, 0xc000, 0});
    set(0x0, 0x10000, 1);
    EXPECT_MAP({0x0, 0x10000, 1});
    set(0x20000, 0, 1);
    EXPECT_MAP({0x0, 0x10000, 1});
}

static void test_map_refuses(void **state)
{
    assert_int_equal(memmap_set(&map, 1, 0x1000, 0), ERR_INVALID);
    assert_int_equal(memmap_set(&map, 0, 0x1001, 0), ERR_INVALID);
    assert_int_equal(memmap_set(&map, 0xfffffffffffff000ull, 0x2000, 0), ERR_INVALID);
    for (uint64_t i = 0; i < map.capacity; i++)
        set(i * 0x2000, 0x1000, 0);
    struct boot_region before[ARRAY_SIZE(regions)];
    memcpy(before, regions, sizeof(regions));
    assert_int_equal(memmap_set(&map, 0x100000, 0x1000, 0), ERR_NO_MEMORY);
    assert_memory_equal(before, regions, sizeof(regions));
    assert_int_equal(map.count, map.capacity);
    set(0x1000, 0x1000, 0); /* closes a gap: needs no room */
    assert_int_equal(map.count, map.capacity - 1);
}

/* Against a plain array of pages. */
static void test_map_random(void **state)
{
    struct boot_region room[64];
    uint8_t pages[64];
    map = (struct memmap){.regions = room, .capacity = ARRAY_SIZE(room)};
    memset(pages, 0xff, sizeof(pages));
    srand(1);
    for (unsigned round = 0; round < 20000; round++) {
        unsigned base = (unsigned)rand() % 64, size = (unsigned)rand() % (64 - base) % 12,
                 kind = (unsigned)rand() % 4;
        if (round % 100 == 0) {
            map.count = 0;
            memset(pages, 0xff, sizeof(pages));
        }
        set(base * PAGE_SIZE, size * PAGE_SIZE, (enum boot_region_kind)kind);
        memset(pages + base, (int)kind, size);
        unsigned page = 0;
        for (uint32_t i = 0; i < map.count; i++) {
            for (; page < room[i].base / PAGE_SIZE; page++)
                assert_int_equal(pages[page], 0xff);
            for (; page < (room[i].base + room[i].size) / PAGE_SIZE; page++)
                assert_int_equal(pages[page], room[i].kind);
            if (i)
                assert_false(room[i - 1].base + room[i - 1].size == room[i].base &&
                             room[i - 1].kind == room[i].kind);
        }
        for (; page < 64; page++)
            assert_int_equal(pages[page], 0xff);
    }
}

/* UEFI specification, EFI_MEMORY_DESCRIPTOR, with the 8 bytes that firmware appends for no reason but to test
 * us. */
struct descriptor {
    uint32_t type, pad;
    uint64_t base, virtual_base, pages, attribute, extra;
};
#define WB 8ull

static void from_efi(const struct descriptor *d, size_t count, enum status want)
{
    struct descriptor *copy = malloc(count * sizeof(*d));
    memcpy(copy, d, count * sizeof(*d));
    assert_int_equal(memmap_from_efi(&map, (struct span){(uint8_t *)copy, count * sizeof(*d)}, sizeof(*d)),
                     want);
    free(copy);
}

static void test_efi_types(void **state)
{
    static const struct {
        uint32_t type;
        uint64_t attribute;
        uint32_t kind;
    } cases[] = {
        {0, WB, 3},
        {1, WB, 0},
        {2, WB, 0},
        {3, WB, 0},
        {4, WB, 0},
        {5, WB, 3},
        {6, WB, 3},
        {7, WB, 0},
        {8, WB, 3},
        {9, WB, 3},
        {10, WB, 3},
        {11, WB, 3},
        {12, WB, 3},
        {13, WB, 3},
        {14, WB, 3},
        {15, WB, 3},
        {0x80000000, WB, 3},
        {7, 7, 3},
        {7, WB | 1ull << 15, 3},
        {7, WB | 1ull << 18, 3},
        {7, WB | 1ull << 63, 3},
        {7, WB | 1ull << 16, 0},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const struct descriptor d = {
            .type = cases[i].type, .base = 0x100000, .pages = 2, .attribute = cases[i].attribute};
        from_efi(&d, 1, STATUS_OK);
        EXPECT_MAP({0x100000, 0x102000, cases[i].kind});
    }
}

static void test_efi_map(void **state)
{
    const struct descriptor d[] = {
        {.type = 7, .base = 0x400000, .pages = 0x100, .attribute = WB}, /* not sorted */
        {.type = 7, .base = 0x0, .pages = 0x9f, .attribute = WB},       /* low memory */
        {.type = 7, .base = 0xff000, .pages = 0x101, .attribute = WB},  /* across 1 MiB */
        {.type = 4, .base = 0x200000, .pages = 0x200, .attribute = WB}, /* touches both */
        {.type = 6, .base = 0x300000, .pages = 1, .attribute = WB},     /* overlap: reserved wins */
        {.type = 11, .base = 0xfec00000, .pages = 1, .attribute = 1},
        {.type = 7, .base = 0x800001, .pages = 1, .attribute = WB}, /* nonsense from here on */
        {.type = 7, .base = 0x800000, .pages = 0, .attribute = WB},
        {.type = 7, .base = 0x800000, .pages = UINT64_MAX, .attribute = WB},
        {.type = 7, .base = 0x800000, .pages = 1ull << 40, .attribute = WB},
        {.type = 7, .base = 1ull << 52, .pages = 1, .attribute = WB},
    };
    from_efi(d, ARRAY_SIZE(d), STATUS_OK);
    EXPECT_MAP({0, 0x9f000, 3}, {0xff000, 0x100000, 3}, {0x100000, 0x300000, 0}, {0x300000, 0x301000, 3},
               {0x301000, 0x500000, 0}, {0xfec00000, 0xfec01000, 3});
    assert_int_equal(memmap_from_efi(&map, (struct span){(const uint8_t *)d, sizeof(d)}, 39), ERR_INVALID);
    map.capacity = 3;
    from_efi(d, ARRAY_SIZE(d), ERR_NO_MEMORY);
    map.capacity = 5;
    from_efi(d, ARRAY_SIZE(d), ERR_NO_MEMORY);
    map.capacity = 6;
    from_efi(d, ARRAY_SIZE(d), STATUS_OK);
    /* A torn last descriptor is not read. */
    uint8_t *torn = malloc(sizeof(d[0]) + 10);
    memcpy(torn, d, sizeof(d[0]) + 10);
    assert_int_equal(memmap_from_efi(&map, (struct span){torn, sizeof(d[0]) + 10}, sizeof(d[0])), STATUS_OK);
    assert_int_equal(map.count, 1);
    free(torn);
}

/* ---- handover ---- */

#define POOL_HPA 0x40000000ull

static uint8_t *pool;

static uint64_t *pool_table(void *ctx, hpa_t page)
{
    assert_true(page.v >= POOL_HPA && page.v < POOL_HPA + LAYOUT_POOL_MIN);
    return (uint64_t *)(void *)(pool + (page.v - POOL_HPA));
}

static const struct pt_env walk_env = {.table = pool_table};

static void expect_mapping(hpa_t root, uint64_t va, uint64_t want_pa, unsigned want_flags)
{
    hpa_t pa;
    unsigned flags;
    assert_int_equal(hostpt_lookup(&walk_env, root, va, &pa, &flags), STATUS_OK);
    assert_int_equal(pa.v, want_pa);
    assert_int_equal(flags, want_flags);
}

static void expect_hole(hpa_t root, uint64_t va)
{
    hpa_t pa;
    unsigned flags;
    assert_int_equal(hostpt_lookup(&walk_env, root, va, &pa, &flags), ERR_NOT_FOUND);
}

static void test_handover(void **state)
{
    const struct elf_image core = {
        .entry = LAYOUT_CORE_VA + 0x40,
        .va = LAYOUT_CORE_VA,
        .size = 0x5000,
        .segment_count = 3,
        .segments = {{.va = LAYOUT_CORE_VA, .mem_size = 0x1000, .exec = true},
                     {.va = LAYOUT_CORE_VA + 0x1000, .mem_size = 0x800},
                     {.va = LAYOUT_CORE_VA + 0x3000, .mem_size = 0x1001, .write = true}},
    };
    struct handover_in in = {.core = &core,
                             .core_hpa = hpa(0x7000000),
                             .pool_hpa = hpa(POOL_HPA),
                             .pool_size = LAYOUT_POOL_MIN,
                             .switch_page = hpa(0x5000)};
    struct handover out;

    pool = malloc(LAYOUT_POOL_MIN);
    in.pool = pool;
    memset(pool, 0xee, LAYOUT_POOL_MIN);
    assert_int_equal(handover_build(&in, &out), STATUS_OK);
    expect_mapping(out.cr3, LAYOUT_CORE_VA + 0x40, 0x7000040, HOSTPT_EXEC);
    expect_mapping(out.cr3, LAYOUT_CORE_VA + 0x1000, 0x7001000, 0);
    expect_hole(out.cr3, LAYOUT_CORE_VA + 0x2000); /* a gap stays a gap */
    expect_mapping(out.cr3, LAYOUT_CORE_VA + 0x3000, 0x7003000, HOSTPT_WRITE);
    expect_mapping(out.cr3, LAYOUT_CORE_VA + 0x4fff, 0x7004fff, HOSTPT_WRITE);
    expect_hole(out.cr3, LAYOUT_CORE_VA + 0x5000);
    for (uint64_t off = 0; off < LAYOUT_POOL_MIN; off += PAGE_SIZE)
        expect_mapping(out.cr3, LAYOUT_POOL_VA + off, POOL_HPA + off, HOSTPT_WRITE);
    expect_hole(out.cr3, LAYOUT_POOL_VA + LAYOUT_POOL_MIN);
    expect_mapping(out.cr3, 0x5000, 0x5000, HOSTPT_EXEC);
    expect_hole(out.cr3, 0x4000);
    expect_hole(out.cr3, 0x6000);
    expect_hole(out.cr3, 0x7000000); /* no other identity mapping */

    assert_int_equal(out.entry, core.entry);
    assert_int_equal(out.info_va, LAYOUT_POOL_VA);
    assert_ptr_equal(out.info, pool);
    assert_int_equal(out.info->magic, BOOT_INFO_MAGIC);
    assert_int_equal(out.info->core_hpa, 0x7000000);
    assert_int_equal(out.info->core_size, 0x5000);
    assert_int_equal(out.info->cr3, out.cr3.v);
    assert_int_equal(out.info->region_count, 0); /* zeroed */
    /* Stack and tables neither touch boot_info nor lie outside of what is counted as used. */
    uint64_t stack_bottom = out.stack_top - HANDOVER_STACK_SIZE - LAYOUT_POOL_VA;
    assert_int_equal(out.stack_top % 16, 0);
    assert_true(stack_bottom >= sizeof(struct boot_info));
    assert_true(out.cr3.v - POOL_HPA >= out.stack_top - LAYOUT_POOL_VA);
    assert_true(out.info->pool_used > out.cr3.v - POOL_HPA && out.info->pool_used < 0x20000);
    assert_int_equal(pool[out.info->pool_used], 0xee); /* nothing written beyond */

    in.switch_page = hpa(0x5001);
    assert_int_equal(handover_build(&in, &out), ERR_INVALID);
    free(pool);
}

/* ---- clocks ---- */

static void test_tsc_frequency(void **state)
{
    enum boot_tsc_source source;
    struct boot_clock_cpuid c = {.max_leaf = 0x16, .leaf_15 = {2, 250, 24000000}, .leaf_16_eax = 3000};

    assert_int_equal(boot_clock_tsc_hz(&c, 3001000000, &source), 3000000000);
    assert_int_equal(source, BOOT_TSC_CPUID_15);
    assert_int_equal(boot_clock_tsc_hz(&c, 0, &source), 3000000000);
    assert_int_equal(source, BOOT_TSC_CPUID_15);
    assert_int_equal(boot_clock_tsc_hz(&c, 200000000, &source), 200000000); /* an emulator */
    assert_int_equal(source, BOOT_TSC_MEASURED);
    assert_int_equal(boot_clock_tsc_hz(&c, 2900000000, &source), 2900000000);
    assert_int_equal(source, BOOT_TSC_MEASURED);
    for (unsigned i = 0; i < 3; i++) { /* any part of leaf 15H can be absent */
        struct boot_clock_cpuid partial = c;
        partial.leaf_15[i] = 0;
        assert_int_equal(boot_clock_tsc_hz(&partial, 2995000000, &source), 2995000000);
        assert_int_equal(source, BOOT_TSC_MEASURED);
        assert_int_equal(boot_clock_tsc_hz(&partial, 0, &source), 3000000000);
        assert_int_equal(source, BOOT_TSC_CPUID_16);
    }
    c.max_leaf = 0x14;
    assert_int_equal(boot_clock_tsc_hz(&c, 0, &source), 0);
    assert_int_equal(boot_clock_tsc_hz(&c, 5, &source), 5);
}

static void test_ticks(void **state)
{
    assert_int_equal(boot_clock_pm_ticks(10, 25, false), 15);
    assert_int_equal(boot_clock_pm_ticks(0xfffff0, 0x10, false), 0x20);
    assert_int_equal(boot_clock_pm_ticks(0xfffffff0, 0x10, true), 0x20);
    assert_int_equal(boot_clock_pm_ticks(0xfff0, 0xfffff0, true), 0xff0000);
    assert_int_equal(boot_clock_hz(150000000, 178977, BOOT_CLOCK_PM_TIMER_HZ), 3000004190);
    assert_int_equal(boot_clock_hz(1ull << 41, 1 << 20, 1000000), (1ull << 21) * 1000000);
}

static void test_calendar(void **state)
{
    static const struct {
        struct boot_clock_calendar t;
        uint64_t want; /* from date -u -d ... +%s; 0: refused */
    } cases[] = {
        {{2000, 1, 1, 0, 0, 0, 0}, 946684800},
        {{2024, 2, 29, 12, 34, 56, 0}, 1709210096},
        {{2026, 11, 21, 3, 15, 0, 0}, 1795230900},
        {{2026, 11, 21, 4, 15, 0, -60}, 1795230900},
        {{2026, 11, 20, 19, 15, 0, 480}, 1795230900},
        {{2100, 3, 1, 0, 0, 0, 0}, 4107542400},
        {{2023, 2, 29, 0, 0, 0, 0}, 0},
        {{2100, 2, 29, 0, 0, 0, 0}, 0},
        {{2000, 2, 29, 0, 0, 0, 0}, 951782400},
        {{1997, 12, 31, 0, 0, 0, 0}, 0},
        {{2200, 1, 1, 0, 0, 0, 0}, 0},
        {{2024, 0, 1, 0, 0, 0, 0}, 0},
        {{2024, 13, 1, 0, 0, 0, 0}, 0},
        {{2024, 1, 0, 0, 0, 0, 0}, 0},
        {{2024, 4, 31, 0, 0, 0, 0}, 0},
        {{2024, 1, 1, 24, 0, 0, 0}, 0},
        {{2024, 1, 1, 0, 60, 0, 0}, 0},
        {{2024, 1, 1, 0, 0, 60, 0}, 0},
        {{2024, 1, 1, 0, 0, 0, 1441}, 0},
        {{2024, 1, 1, 0, 0, 0, -1441}, 0},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        uint64_t seconds = 0;
        enum status s = boot_clock_unix_seconds(&cases[i].t, &seconds);
        assert_int_equal(s, cases[i].want ? STATUS_OK : ERR_RANGE);
        assert_int_equal(seconds, cases[i].want);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_info_good, setup_info),
        cmocka_unit_test_setup(test_info_header, setup_info),
        cmocka_unit_test_setup(test_info_regions, setup_info),
        cmocka_unit_test_setup(test_info_cpus, setup_info),
        cmocka_unit_test_setup(test_info_own_memory, setup_info),
        cmocka_unit_test_setup(test_info_files, setup_info),
        cmocka_unit_test_setup(test_map_set, setup_map),
        cmocka_unit_test_setup(test_map_refuses, setup_map),
        cmocka_unit_test_setup(test_map_random, setup_map),
        cmocka_unit_test_setup(test_efi_types, setup_map),
        cmocka_unit_test_setup(test_efi_map, setup_map),
        cmocka_unit_test(test_handover),
        cmocka_unit_test(test_tsc_frequency),
        cmocka_unit_test(test_ticks),
        cmocka_unit_test(test_calendar),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
