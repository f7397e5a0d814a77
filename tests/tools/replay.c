/* scripts/replay: the exits of the dumps in a console transcript, run again. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/host/replay.h"

enum { SAME = 0, DIFFERENT = 1, WRONG_USAGE = 2 };

static struct dump dump; /* too large for the stack */

static char *read_file(const char *path, size_t *size)
{
    char *text = NULL;
    size_t room = 0, got;
    FILE *file = fopen(path, "rb");
    *size = 0;
    do {
        if (!file || (*size == room && !(text = realloc(text, room = 2 * room + 65536)))) {
            perror(path);
            exit(WRONG_USAGE);
        }
        got = fread(text + *size, 1, room - *size, file);
        *size += got;
    } while (got);
    if (ferror(file)) {
        perror(path);
        exit(WRONG_USAGE);
    }
    fclose(file);
    return text;
}

static bool show_vcpu(const struct dump_vcpu *v)
{
    printf("\n%s/%u on CPU %u: %llu exits ever, %u in the dump; ", dump.vm, v->id, v->cpu,
           (unsigned long long)v->exits, v->count);
    if (v->has_snapshot) {
        printf("rip %llx; its registers were copied at %+.3f us from the last exit\n",
               (unsigned long long)v->snapshot.reg[VIRT_RIP],
               v->count ? (double)(int64_t)(v->snapshot.tsc - v->kept[v->count - 1].entry.tsc) * 1000 /
                              (double)dump.khz
                        : 0);
    } else {
        printf("no registers: %s\n", v->why_not);
    }
    struct replay r = replay_vcpu(&dump, v, stdout);
    printf("%s/%u: %u same, %u decoded only, %u differ\n", dump.vm, v->id, r.same, r.decoded, r.differ);
    return r.differ == 0;
}

int main(int argc, char **argv)
{
    const char *path = NULL, *vm = NULL;
    long only = -1;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--vm") == 0 && i + 1 < argc)
            vm = argv[++i];
        else if (strcmp(argv[i], "--vcpu") == 0 && i + 1 < argc)
            only = strtol(argv[++i], NULL, 10);
        else
            path = argv[i];
    }
    if (!path) {
        fprintf(stderr, "usage: replay FILE [--vm NAME] [--vcpu N]\n");
        return WRONG_USAGE;
    }
    size_t size, at = 0;
    char why[400], *text = read_file(path, &size);
    unsigned shown = 0, wrong = 0;
    enum dump_found found;
    while ((found = dump_read(text, size, &at, vm, &dump, why, sizeof(why))) != DUMP_NONE) {
        printf("%s: a dump of %s with %u vCPUs; state: %s\n", path, dump.vm, dump.promised, dump.state);
        if (found == DUMP_BROKEN) {
            printf("%s: this dump is not whole: %s\n", path, why);
            wrong++;
            continue;
        }
        for (uint32_t i = 0; i < dump.vcpu_count; i++) {
            if (only >= 0 && dump.vcpus[i].id != (unsigned long)only)
                continue;
            shown++;
            wrong += !show_vcpu(&dump.vcpus[i]);
        }
    }
    free(text);
    if (!shown && !wrong)
        fprintf(stderr, "%s: no dump%s%s%s in it\n", path, vm ? " of " : "", vm ? vm : "",
                only >= 0 ? " with that vCPU" : "");
    return shown && !wrong ? SAME : DIFFERENT;
}
