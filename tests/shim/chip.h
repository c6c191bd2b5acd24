// The language of CUDA on a CPU: enough of it for mix.cu to be compiled by g++ and called a thread at a time.
// Without headers, which would take longer to compile than the kernel does.
extern "C" {
float fmaf(float, float, float) noexcept;
float fminf(float, float) noexcept;
float fmaxf(float, float) noexcept;
double fma(double, double, double) noexcept;
double fabs(double) noexcept;
long lrintf(float) noexcept;
}

#define __device__
#define __global__
#define __grid_constant__

struct Index { unsigned x, y, z; };
static thread_local Index blockIdx, threadIdx, blockDim, gridDim;

struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };

// Where the kernel may read and write, told by whoever launches. What lies beside it, or is not aligned as the chip asks,
// is counted and not touched. Who reads and writes each byte is noted: threads run in any order on a chip, so a byte that
// one writes may be read or written by no other, and what is read past the caches may not be written at all.
struct Touch { int reader, writer; };  // numbers of threads, from 1; SEVERAL: more than one
struct Region {
    const char *begin, *end;
    Touch *touches;           // one for each byte
    long long read, written;  // bytes that went through
};
struct Faults { long long outside, crooked, raced, stale; };
static const int SEVERAL = -1;
static const int SOURCE = 0, RESULT = 1, PLAN = 2, FACTORS_REGION = 3, REGIONS = 4;
static Region *regions;  // the result is the very region of the source in place
static Faults faults;
static int thread_number;

template <class T> inline Region *region_of(const T *p, int first, int count) {
    const char *at = (const char *)p;
    if ((unsigned long long)at % sizeof(T)) { faults.crooked++; return 0; }
    for (int i = first; i < first + count; i++)
        if (regions[i].begin <= at && at + sizeof(T) <= regions[i].end) return &regions[i];
    faults.outside++;
    return 0;
}
template <class T> inline T fetch(const T *p) {
    T none{};
    Region *region = region_of(p, SOURCE, REGIONS);
    if (!region) return none;
    region->read += sizeof(T);
    if (region->touches)
        for (unsigned i = 0; i < sizeof(T); i++) {
            Touch &touch = region->touches[(const char *)p - region->begin + i];
            if (touch.writer) faults.raced++;
            touch.reader = touch.reader == 0 || touch.reader == thread_number ? thread_number : SEVERAL;
        }
    return *p;
}
template <class T> inline T fetch_constant(const T *p) {
    const char *at = (const char *)p;
    if (at < regions[RESULT].end && at + sizeof(T) > regions[RESULT].begin) faults.stale++;
    return fetch(p);
}
template <class T> inline void put(T *p, T value) {
    Region *region = region_of(p, RESULT, 1);
    if (!region) return;
    region->written += sizeof(T);
    for (unsigned i = 0; i < sizeof(T); i++) {
        Touch &touch = region->touches[(const char *)p - region->begin + i];
        if (touch.writer || (touch.reader && touch.reader != thread_number)) faults.raced++;
        touch.writer = thread_number;
    }
    *p = value;
}
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((unsigned long long)a * b >> 32); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline int __float2int_rn(float v) { return (int)lrintf(v); }
inline float __uint_as_float(unsigned bits) { float v; __builtin_memcpy(&v, &bits, 4); return v; }
inline unsigned __float_as_uint(float v) { unsigned bits; __builtin_memcpy(&bits, &v, 4); return bits; }

inline float half_to_float(unsigned short bits) { _Float16 v; __builtin_memcpy(&v, &bits, 2); return (float)v; }
inline unsigned short float_to_half(float v) {
    _Float16 half = (_Float16)v;
    unsigned short bits;
    __builtin_memcpy(&bits, &half, 2);
    return bits;
}
inline unsigned short float_to_bfloat16(float v) {
    unsigned bits = __float_as_uint(v);
    if (v != v) return 0x7fff;
    return (unsigned short)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
