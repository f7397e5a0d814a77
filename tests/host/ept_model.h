/* EPT against a model: an array with one word for each guest page of a 2 GiB window that crosses a 512 GiB
 * boundary. Every store into a table that a CPU could reach is judged by itself: it must leave valid tables,
 * and it may change translations only where and how the operation under way is to change them. Breaches
 * abort(). */
#pragma once

#include "arch/x86/ept.h"

#define EPT_MODEL_BASE   (511ull << 30)
#define EPT_MODEL_PAGES  (uint64_t)(2u << 18) /* 2 GiB */
#define EPT_MODEL_TABLES 1100u

enum ept_model_op { EPT_MODEL_NONE, EPT_MODEL_MAP, EPT_MODEL_UNMAP, EPT_MODEL_PROTECT };

struct ept_model {
    struct ept ept;
    struct pt_env env;
    uint64_t *want;      /* by page: 0 hole, else host address | flags | type << 3 */
    uint64_t want_count; /* words that are not 0 */
    uint64_t stores;     /* into reachable tables */
    uint64_t limit;      /* pages the allocator may have out */

    /* the operation under way */
    enum ept_model_op op;
    uint64_t op_ga, op_end, op_value;

    /* the fake memory for tables */
    uint64_t (*tables)[512];
    uint64_t in_use;
    struct {
        bool allocated, linked;
        uint8_t level;
        uint64_t base;
    } meta[EPT_MODEL_TABLES];
};

/* false: the limit is 0 */
bool ept_model_init(struct ept_model *m, bool has_2m, bool has_1g, uint64_t limit);
void ept_model_free(struct ept_model *m); /* ept_destroy(), and checks that every table came back */

/* Both do the operation on the tables and on the model, check that they agree, and answer what the tables
 * said. Pages are counted from the start of the window; first + count <= EPT_MODEL_PAGES. */
enum status ept_model_map(struct ept_model *m, uint64_t first, uint64_t count, uint64_t ha, unsigned flags,
                          enum ept_memory_type type);
enum status ept_model_unmap(struct ept_model *m, uint64_t first, uint64_t count);
enum status ept_model_protect(struct ept_model *m, uint64_t first, uint64_t count, unsigned flags);
enum status ept_model_allow_exec(struct ept_model *m, uint64_t page);

/* Compares all translations. */
void ept_model_check(struct ept_model *m);
