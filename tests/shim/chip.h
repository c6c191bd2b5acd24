// The language of CUDA on a CPU: enough of it for mix.cu to be compiled by g++ and called a thread at a time.
#include <cmath>
#include <cstring>

#define __device__
#define __global__
#define __grid_constant__

struct Index { unsigned x, y, z; };
static thread_local Index blockIdx, threadIdx, blockDim, gridDim;

struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };

// Where the kernel may read and write, told by whoever launches: what lies beside it, and what is not aligned as the
// chip asks, is counted and not touched.
struct Span { const char *begin, *end; };
static Span readable[4], writable[1];
static long long outside, crooked;

template <class T, int N> inline bool allowed(const T *p, const Span (&spans)[N]) {
    const char *at = (const char *)p;
    if ((unsigned long long)at % sizeof(T)) { crooked++; return false; }
    for (const Span &span : spans)
        if (span.begin <= at && at + sizeof(T) <= span.end) return true;
    outside++;
    return false;
}
template <class T> inline T fetch_constant(const T *p) { T none{}; return allowed(p, readable) ? *p : none; }
template <class T> inline T fetch(const T *p) { return fetch_constant(p); }
template <class T> inline void put(T *p, T value) { if (allowed(p, writable)) *p = value; }
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((unsigned long long)a * b >> 32); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline int __float2int_rn(float v) { return (int)lrintf(v); }
inline float __uint_as_float(unsigned bits) { float v; memcpy(&v, &bits, 4); return v; }
inline unsigned __float_as_uint(float v) { unsigned bits; memcpy(&bits, &v, 4); return bits; }


inline float half_to_float(unsigned short bits) { _Float16 v; memcpy(&v, &bits, 2); return (float)v; }
inline unsigned short float_to_half(float v) {
    _Float16 half = (_Float16)v;
    unsigned short bits;
    memcpy(&bits, &half, 2);
    return bits;
}
inline unsigned short float_to_bfloat16(float v) {
    unsigned bits = __float_as_uint(v);
    if (v != v) return 0x7fff;
    return (unsigned short)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
