/* The floor of the array walker: the same walks in C, with the same columns (address, page size, rights, outcome).
 *
 * walk IMAGE LEVELS ROOT NEED MAXPHYADDR ADDRESSES REPEATS [NESTED_LEVELS NESTED_ROOT]
 * IMAGE: raw memory from address 0; ADDRESSES: file of 64-bit words; NEED: bits that all entries must have.
 * Prints "name seconds checksum rows" for c1 (one walk after another), c16 (sixteen interleaved, prefetched) and
 * enumerate (depth first, into ranges); with nested tables (AMD) for nested (one two-dimensional walk after another,
 * all references made). Seconds are the best of REPEATS; the columns are allocated anew each time.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

typedef uint64_t u64;
enum { OK, NOT_PRESENT, RESERVED, RIGHTS, KEY, UNKNOWN, NON_CANONICAL, ON_ENTRY = 0x40, ON_PAGE = 0x80 };
enum { R = 1, W = 2, U = 4, X = 8 };
#define LANES 16
#define ADDRESS 0x000ffffffffff000ull

static u64 *memory, frames, root, need, nested_root, table_reserved[6], page_reserved[6];
static int levels, nested_levels;
static u64 *physical;
static uint8_t *shift_of, *code_of;
static uint16_t *rights_of;

static inline int shift_at(int level) { return 12 + 9 * (level - 1); }

static inline uint16_t rights_from(u64 every, u64 some) {
    return (every & (R | W | U)) | (some >> 63 ? 0 : X);
}

static inline void finish(u64 i, int code, u64 pa, int shift, uint16_t rights) {
    physical[i] = pa, shift_of[i] = shift, rights_of[i] = rights, code_of[i] = code;
}

/* One step of a walk: true where it goes on, with *at the next entry's index in memory. */
struct walk { u64 va, at, every, some; int level; };

static inline int start(struct walk *w, u64 i, u64 va) {
    int unused = 64 - (levels * 9 + 12);
    w->va = va, w->every = ~0ull, w->some = 0, w->level = levels;
    if ((u64)((int64_t)(va << unused) >> unused) != va) { finish(i, NON_CANONICAL, 0, 0, 0); return 0; }
    w->at = (root >> 3) + (va >> shift_at(levels) & 511);
    return 1;
}

static inline int step(struct walk *w, u64 i) {
    int level = w->level, shift = shift_at(level);
    if (w->at >> 9 >= frames) { finish(i, UNKNOWN, w->at << 3, 0, 0); return 0; }
    u64 e = memory[w->at];
    if (!(e & 1)) { finish(i, NOT_PRESENT, 0, 0, 0); return 0; }
    int leaf = level == 1 || (level < 4 && e & 0x80);
    if (e & (leaf ? page_reserved : table_reserved)[level]) { finish(i, RESERVED, 0, 0, 0); return 0; }
    w->every &= e, w->some |= e;
    if (leaf) {
        u64 low = (1ull << shift) - 1;
        if ((w->every & need) != need) { finish(i, RIGHTS, 0, 0, 0); return 0; }
        finish(i, OK, (e & ADDRESS & ~low) | (w->va & low), shift, rights_from(w->every, w->some));
        return 0;
    }
    w->level = level - 1;
    w->at = ((e & ADDRESS) >> 3) + (w->va >> shift_at(level - 1) & 511);
    return 1;
}

static void c1(const u64 *va, u64 count) {
    for (u64 i = 0; i < count; i++) {
        struct walk w;
        if (start(&w, i, va[i])) while (step(&w, i)) ;
    }
}

static void c16(const u64 *va, u64 count) {
    for (u64 first = 0; first < count; first += LANES) {
        int n = count - first < LANES ? count - first : LANES, live[LANES], running = 0;
        struct walk w[LANES];
        for (int k = 0; k < n; k++) if (start(&w[k], first + k, va[first + k])) live[running++] = k;
        while (running) {
            int next = 0;
            for (int j = 0; j < running; j++) {
                int k = live[j];
                if (step(&w[k], first + k)) { __builtin_prefetch(&memory[w[k].at]); live[next++] = k; }
            }
            running = next;
        }
    }
}

/* Guest-physical to host-physical, for an access that needs `bits` of every entry. */
static inline int through(u64 gpa, u64 bits, u64 *pa, u64 *every, u64 *some, int *shift) {
    u64 table = nested_root;
    *every = ~0ull, *some = 0;
    for (int level = nested_levels;; level--) {
        u64 at = (table >> 3) + (gpa >> shift_at(level) & 511);
        if (at >> 9 >= frames) { *pa = at << 3; return UNKNOWN; }
        u64 e = memory[at];
        if (!(e & 1)) return NOT_PRESENT;
        int leaf = level == 1 || (level < 4 && e & 0x80);
        if (e & (leaf ? page_reserved : table_reserved)[level]) return RESERVED;
        *every &= e, *some |= e;
        if (leaf) {
            u64 low = (1ull << shift_at(level)) - 1;
            if ((*every & bits) != bits) return RIGHTS;
            *pa = (e & ADDRESS & ~low) | (gpa & low), *shift = shift_at(level);
            return OK;
        }
        table = e & ADDRESS;
    }
}

static inline void fail(u64 i, int code, u64 gpa, u64 pa, int where) {
    if (code == UNKNOWN) finish(i, UNKNOWN, pa, 0, 0);
    else finish(i, code | where, gpa, 0, 0);
}

static void nested(const u64 *va, u64 count) {
    for (u64 i = 0; i < count; i++) {
        struct walk w;
        if (!start(&w, i, va[i])) continue;
        for (;;) {
            u64 gpa = w.at << 3, pa, every, some;
            int shift = 0, code = through(gpa, U | W, &pa, &every, &some, &shift);
            if (code) { fail(i, code, gpa, pa, ON_ENTRY); break; }
            w.at = pa >> 3;
            if (step(&w, i)) continue;
            if (code_of[i]) break;
            gpa = physical[i], code = through(gpa, U, &pa, &every, &some, &shift);
            if (code) { fail(i, code, gpa, pa, ON_PAGE); break; }
            uint16_t both = rights_of[i] & (rights_from(every, some) | U);
            finish(i, OK, pa, shift < shift_of[i] ? shift : shift_of[i], both);
            break;
        }
    }
}

struct range { u64 va, pa, size; uint16_t rights; uint8_t shift; };
static struct range *ranges;
static u64 range_count, range_room;

static void emit(u64 va, u64 pa, int shift, uint16_t rights) {
    u64 size = 1ull << shift;
    if (range_count) {
        struct range *last = &ranges[range_count - 1];
        int alike = last->rights == rights && last->shift == shift;
        if (alike && last->va + last->size == va && last->pa + last->size == pa) {
            last->size += size;
            return;
        }
    }
    if (range_count == range_room) ranges = realloc(ranges, (range_room = range_room * 2 + 1024) * sizeof *ranges);
    ranges[range_count++] = (struct range){va, pa, size, rights, shift};
}

static void enumerate(u64 table, int level, u64 va, u64 every, u64 some) {
    int shift = shift_at(level), unused = 64 - (levels * 9 + 12);
    if (table >> 12 >= frames) return;
    for (u64 slot = 0; slot < 512; slot++) {
        u64 e = memory[(table >> 3) + slot], at = va | slot << shift;
        if (!(e & 1)) continue;
        if (level == levels) at = (u64)((int64_t)(at << unused) >> unused);
        int leaf = level == 1 || (level < 4 && e & 0x80);
        if (e & (leaf ? page_reserved : table_reserved)[level]) continue;
        if (leaf) emit(at, e & ADDRESS & ~((1ull << shift) - 1), shift, rights_from(every & e, some | e));
        else enumerate(e & ADDRESS, level - 1, at, every & e, some | e);
    }
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static u64 *slurp(const char *path, u64 *words) {
    struct stat st;
    FILE *f = fopen(path, "rb");
    if (!f || fstat(fileno(f), &st)) { perror(path); exit(2); }
    *words = st.st_size / 8;
    u64 *data = malloc(st.st_size);
    if (fread(data, 8, *words, f) != *words) { perror(path); exit(2); }
    fclose(f);
    return data;
}

static u64 checksum_of_walks(u64 count) {
    u64 sum = 0;
    for (u64 i = 0; i < count; i++)
        sum += (i + 1) * (physical[i] + 3 * shift_of[i] + 5 * rights_of[i] + 7 * code_of[i]);
    return sum;
}

static u64 checksum_of_ranges(void) {
    u64 sum = 0;
    for (u64 i = 0; i < range_count; i++) {
        struct range r = ranges[i];
        sum += (i + 1) * (r.va + 3 * r.pa + 5 * r.size + 7 * r.rights + 11 * r.shift);
    }
    return sum;
}

static void print(const char *name, double seconds, u64 sum, u64 rows) {
    printf("%s %.9f %llu %llu\n", name, seconds, (unsigned long long)sum, (unsigned long long)rows);
}

static void measure(const char *name, void (*walks)(const u64 *, u64), const u64 *va, u64 count, int repeats) {
    double best = 1e9;
    for (int n = 0; n < repeats; n++) {
        free(physical), free(shift_of), free(rights_of), free(code_of);
        double began = now();
        physical = malloc(count * 8), shift_of = malloc(count), rights_of = malloc(count * 2), code_of = malloc(count);
        walks(va, count), began = now() - began;
        if (began < best) best = began;
    }
    print(name, best, checksum_of_walks(count), count);
}

int main(int argc, char **argv) {
    if (argc != 8 && argc != 10) return 2;
    u64 words, count;
    memory = slurp(argv[1], &words), frames = words >> 9;
    levels = atoi(argv[2]), root = strtoull(argv[3], 0, 0), need = strtoull(argv[4], 0, 0);
    u64 high = ADDRESS & ~((1ull << atoi(argv[5])) - 1);
    for (int level = 1; level <= 5; level++) {
        table_reserved[level] = high | (level > 3 ? 0x80 : 0);
        page_reserved[level] = high | (level > 1 ? (1ull << shift_at(level)) - (1ull << 13) : 0);
    }
    u64 *va = slurp(argv[6], &count);
    int repeats = atoi(argv[7]);
    if (argc == 10) {
        nested_levels = atoi(argv[8]), nested_root = strtoull(argv[9], 0, 0);
        measure("nested", nested, va, count, repeats);
        return 0;
    }
    measure("c1", c1, va, count, repeats);
    measure("c16", c16, va, count, repeats);
    double best = 1e9;
    for (int n = 0; n < repeats; n++) {
        range_count = 0;
        double began = now();
        enumerate(root, levels, 0, ~0ull, 0), began = now() - began;
        if (began < best) best = began;
    }
    print("enumerate", best, checksum_of_ranges(), range_count);
    return 0;
}
