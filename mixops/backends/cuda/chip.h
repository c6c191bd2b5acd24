// What the chip does in one instruction and C++ has no word for. Without headers: the compiler comes without them.

// ``fetch_constant`` may go past the caches that writes are seen in: only for what nobody writes while the kernel runs.
template <class T> __device__ inline T fetch_constant(const T *from) { return __ldg(from); }
template <class T> __device__ inline T fetch(const T *from) { return *from; }
template <class T> __device__ inline void put(T *to, T value) { *to = value; }

__device__ inline float half_to_float(unsigned short bits) {
    float v;
    asm("cvt.f32.f16 %0, %1;" : "=f"(v) : "h"(bits));
    return v;
}

__device__ inline unsigned short float_to_half(float v) {
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(v));
    return bits;
}

__device__ inline unsigned short float_to_bfloat16(float v) {
#if __CUDA_ARCH__ >= 800
    unsigned short bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(v));
    return bits;
#else
    unsigned bits = __float_as_uint(v);
    if (v != v) return 0x7fff;
    return (unsigned short)(bits + 0x7fff + (bits >> 16 & 1) >> 16);
#endif
}
