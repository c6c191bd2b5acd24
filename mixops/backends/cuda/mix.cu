// One mix in one launch: gather, paint, normalise, cast and lay out.
//
//   out[n] = x[base[n]];  for each patch, in order:  out[n, box] = (1 - opacity) * out[n, box] + opacity * donor
//
// blockIdx.x is the row and runs fastest: all rows work on the same stretch of theirs at the same time, so that what one
// reads of its donor is still in the second-level cache from the donor's own reading. blockIdx.y is the stretch.
//
// form.py writes what is fixed at compile time above this text, as macros:
//   IN, OUT      element types: one of the structs and types under "Numbers"
//   WORK         what values are held in between: float, double, int (bytes blended as whole numbers), or IN itself (ids)
//   VEC          elements that a thread reads of a row at once, next to one another, and aligned to that many
//   STORE        SAME: the result lies as the input; PLANES: channels leave the inside of a pixel for planes; PIXELS: the
//                reverse; ANY: every element on its own
//   CHANNELS     how many planes or places of a pixel STORE PLANES and STORE PIXELS exchange, 2 to 4
//   INSIDE       channels that lie next to one another in the source and have factors of their own, 2 to 4, or 0
//   RANK, LINE   axes of a box, and which of them is the innermost in memory: a box cuts one run out of such a line
//   PATCHES      1, or 0 for any number
//   FILL         0: no fills, 1: values, 2: noise as well
//   SHIFT        1: donors may lie elsewhere than their boxes
//   VALID        1: own OR donor, for masks
//   FACTORS      0: nothing to normalise, 1: one factor, 2: up to 4 of them, one for each channel, 3: more, by address
//   PAIRS        1: in place; a block owns two rows that exchange, so nothing is read after it was written
//   WORDS        size of a plan that travels as an argument; 0: it lies in memory
//   AXES         axes of a row, for STORE ANY and FILL 2
//   WIDE         1: boxes in 32 bits an edge rather than 16

#include "chip.h"

typedef unsigned char byte;
typedef unsigned short half_word;
typedef unsigned long long wide_word;

#define SAME 0
#define PLANES 1
#define PIXELS 2
#define ANY 3

// -- Arguments; packing.py and arguments.py write the same ------------------------------------------------------------

// n / d as a product and a shift, for n below 2**31.
struct Divisor {
    unsigned mul, shift;
};

struct Axis {
    long long out_step;    // bytes in the result
    Divisor extent;
    unsigned size;         // the extent itself
    unsigned in_step;      // elements in the source
    unsigned place;        // what one step adds to a noise position
    unsigned unused;
};

struct Mix {
    const byte *x;
    byte *out;
    const unsigned *plan;      // if WORDS is 0
    const WORK_FACTOR *factors;  // scales, then shifts, if FACTORS is 3
    long long x_step, out_step;  // bytes from row to row
    long long plane;           // bytes from channel to channel, for STORE PLANES
    unsigned record;           // words of a row of the plan
    unsigned patches;
    unsigned fills;            // word where the fills begin
    unsigned fill;             // words of a fill
    unsigned fill_values;      // values of a fill: 1, or one for each channel
    unsigned leave_fills;      // 1: patches that paint leave this array alone
    unsigned items;            // vectors (STORE ANY: elements) of a row
    unsigned length;           // elements of a line
    unsigned inner;            // elements at one place of a line
    unsigned channels;
    Divisor line;              // by length
    Divisor channel;           // by the elements of one channel that lie together
    Divisor all_channels;      // by channels
    unsigned channel_size;
    unsigned shift_step[3];    // elements in the source that one place of a box axis takes
    Divisor cross_step[3], cross_extent[3];  // a box axis across lines: lines that one place takes, and its extent
    unsigned cross_size[3];
    unsigned unused;
    WORK_FACTOR scale[4], offset[4];
#if STORE == ANY || FILL == 2
    Axis axis[AXES];           // outermost first: of the result's memory for STORE ANY, else of the source's
#endif
#if WORDS
    unsigned words[WORDS];
#endif
};

// A row of the plan: base, the row it becomes, then for each patch: partner, opacity, RANK * (1 + WIDE) words of its box
// (16 bits each: start, stop), and with SHIFT how far the donor lies along each axis.
#define BOX_WORDS (RANK * (1 + WIDE))
#define PATCH_WORDS (2 + BOX_WORDS + SHIFT * RANK)

__device__ inline unsigned word(const Mix &p, unsigned i) {
#if WORDS
    return p.words[i];
#else
    return fetch_constant(p.plan + i);
#endif
}

__device__ inline unsigned over(unsigned n, Divisor d) { return (__umulhi(n, d.mul) + n) >> d.shift; }

// -- Numbers ----------------------------------------------------------------------------------------------------------

struct f16 { half_word bits; };
struct bf16 { half_word bits; };
struct u8 { byte bits; };       // a byte that can be averaged; ids of a byte are ``byte`` or ``signed char``

__device__ inline float widened(f16 v) { return half_to_float(v.bits); }
__device__ inline float widened(bf16 v) { return __uint_as_float((unsigned)v.bits << 16); }
__device__ inline float widened(float v) { return v; }
__device__ inline double widened(double v) { return v; }
__device__ inline int widened(u8 v) { return v.bits; }
template <class T> __device__ inline T widened(T v) { return v; }

// A double as the float next to it with the last bit set where something was cut off: rounding that once more, to a
// shorter type, gives what rounding the double would have given.
__device__ inline float to_odd(double v) {
    float f = (float)v;
    if ((double)f == v || !(fabs(v) < 3.4e38)) return f;
    unsigned bits = __float_as_uint(f);
    if (fabs((double)f) > fabs(v)) bits -= 1;
    return __uint_as_float(bits | 1);
}

// A value as the result holds it, rounded once.
template <class W, class O> struct Narrowed {
    __device__ static O of(W v) { return (O)v; }
};
template <> struct Narrowed<float, f16> {
    __device__ static f16 of(float v) { return {float_to_half(v)}; }
};
template <> struct Narrowed<float, bf16> {
    __device__ static bf16 of(float v) { return {float_to_bfloat16(v)}; }
};
template <> struct Narrowed<double, f16> {
    __device__ static f16 of(double v) { return {float_to_half(to_odd(v))}; }
};
template <> struct Narrowed<double, bf16> {
    __device__ static bf16 of(double v) { return {float_to_bfloat16(to_odd(v))}; }
};
template <> struct Narrowed<int, u8> {
    __device__ static u8 of(int v) { return {(byte)v}; }
};

// What a fill paints, in the type that values are held in.
template <class W, class I> struct Painted {
    __device__ static W of(float v) { return (W)(long long)v; }
};
template <class I> struct Painted<wide_word, I> {
    __device__ static wide_word of(float v) { return (wide_word)v; }
};
template <class I> struct Painted<float, I> {
    __device__ static float of(float v) { return v; }
};
template <class I> struct Painted<double, I> {
    __device__ static double of(float v) { return v; }
};
template <> struct Painted<int, u8> {
    __device__ static int of(float v) { return __float2int_rn(fminf(fmaxf(v, 0.f), 255.f)); }
};
template <> struct Painted<bool, bool> {
    __device__ static bool of(float v) { return v != 0.f; }
};

__device__ inline float blended(float own, float other, float o) { return fmaf(o, other, (1.f - o) * own); }
__device__ inline double blended(double own, double other, float o) {
    return fma((double)o, other, (1. - (double)o) * own);
}
// The same whole numbers in every backend.
__device__ inline int blended(int own, int other, float o) {
    unsigned q = (unsigned)__float2int_rn(o * 65536.f);
    return (int)(((65536u - q) * (unsigned)own + q * (unsigned)other + 32768u) >> 16);
}
template <class T> __device__ inline T blended(T, T other, float) { return other; }  // ids are never blended

// -- Memory -----------------------------------------------------------------------------------------------------------

// N elements next to one another, in pieces of up to 16 bytes; whoever launches sees to their alignment.
template <class T, int N> union Run {
    static const int BYTES = N * (int)sizeof(T);
    static const int PIECE = BYTES % 16 == 0 ? 16 : BYTES % 8 == 0 ? 8 : BYTES % 4 == 0 ? 4 : BYTES % 2 == 0 ? 2 : 1;
    __device__ Run() {}
    T element[N];
    uint4 sixteen[PIECE == 16 ? BYTES / 16 : 1];
    uint2 eight[PIECE == 8 ? BYTES / 8 : 1];
    unsigned four[PIECE == 4 ? BYTES / 4 : 1];
    half_word two[PIECE == 2 ? BYTES / 2 : 1];
    byte one[PIECE == 1 ? BYTES : 1];
};

#if PAIRS
#define READ(pointer) fetch(pointer)
#else
#define READ(pointer) fetch_constant(pointer)
#endif

template <class T, int N> __device__ inline void read(const byte *from, Run<T, N> &run) {
    typedef Run<T, N> R;
#pragma unroll
    for (int i = 0; i < R::BYTES / R::PIECE; i++) {
        if (R::PIECE == 16) run.sixteen[i] = READ((const uint4 *)from + i);
        else if (R::PIECE == 8) run.eight[i] = READ((const uint2 *)from + i);
        else if (R::PIECE == 4) run.four[i] = READ((const unsigned *)from + i);
        else if (R::PIECE == 2) run.two[i] = READ((const half_word *)from + i);
        else run.one[i] = READ(from + i);
    }
}

template <class T, int N> __device__ inline void write(byte *to, const Run<T, N> &run) {
    typedef Run<T, N> R;
#pragma unroll
    for (int i = 0; i < R::BYTES / R::PIECE; i++) {
        if (R::PIECE == 16) put((uint4 *)to + i, run.sixteen[i]);
        else if (R::PIECE == 8) put((uint2 *)to + i, run.eight[i]);
        else if (R::PIECE == 4) put((unsigned *)to + i, run.four[i]);
        else if (R::PIECE == 2) put((half_word *)to + i, run.two[i]);
        else put(to + i, run.one[i]);
    }
}

__device__ inline void gather(const byte *from, WORK (&values)[VEC]) {
    Run<IN, VEC> run;
    read(from, run);
#pragma unroll
    for (int i = 0; i < VEC; i++) values[i] = (WORK)widened(run.element[i]);
}

// -- Where a patch lies -----------------------------------------------------------------------------------------------

#if VEC > 32
typedef wide_word Mask;
#else
typedef unsigned Mask;
#endif

__device__ inline Mask first(unsigned n) { return n >= 8 * sizeof(Mask) ? ~(Mask)0 : ((Mask)1 << n) - 1; }
#define ALL first(VEC)

__device__ inline unsigned edge(const Mix &p, unsigned patch, int axis, int end) {
#if WIDE
    return word(p, patch + 2 + 2 * axis + end);
#else
    return word(p, patch + 2 + axis) >> 16 * end & 0xffff;
#endif
}

// Does a line lie in the box along the axes other than its own?
__device__ inline bool crosses(const Mix &p, unsigned patch, unsigned line) {
    bool inside = true;
#pragma unroll
    for (int r = 0; r < RANK; r++) {
        if (r == LINE) continue;
        unsigned at = over(line, p.cross_step[r]);
        at -= over(at, p.cross_extent[r]) * p.cross_size[r];
        inside = inside && at >= edge(p, patch, r, 0) && at < edge(p, patch, r, 1);
    }
    return inside;
}

// Which of the elements e, e + 1, ... lie inside the box, a bit for each.
__device__ inline Mask inside(const Mix &p, unsigned patch, unsigned e) {
    if (RANK == 0) return ALL;
    unsigned line = over(e, p.line), at = e - line * p.length;
    unsigned start = edge(p, patch, LINE, 0) * p.inner, stop = edge(p, patch, LINE, 1) * p.inner;
    if (VEC == 1 || at + VEC <= p.length) {
        int low = max((int)start - (int)at, 0), high = min((int)stop - (int)at, VEC);
        return low < high && crosses(p, patch, line) ? first(high) & ~first(low) : 0;
    }
    Mask mask = 0;
    bool across = crosses(p, patch, line);
#pragma unroll 1
    for (int i = 0; i < VEC; i++, at++) {
        if (at == p.length) {
            at = 0;
            across = crosses(p, patch, ++line);
        }
        if (across && at >= start && at < stop) mask |= (Mask)1 << i;
    }
    return mask;
}

// -- What a patch paints ----------------------------------------------------------------------------------------------

__device__ inline unsigned channel_of(const Mix &p, unsigned e) {
    unsigned run = over(e, p.channel);
    return run - over(run, p.all_channels) * p.channels;
}

#if FILL == 2
#include "noise.h"

// Where an element counts among those of its channel: the axes that boxes are not drawn on first, then the boxes' own.
__device__ inline unsigned position_of(const Mix &p, unsigned item) {
    unsigned position = 0;
#pragma unroll
    for (int a = AXES - 1; a >= 0; a--) {
        unsigned outer = over(item, p.axis[a].extent);
        position += (item - outer * p.axis[a].size) * p.axis[a].place;
        item = outer;
    }
    return position;
}
#endif

// ``item`` is e itself but for STORE ANY, whose axes are those of the result.
__device__ inline void fill(const Mix &p, unsigned i, unsigned e, unsigned item, Mask mask, WORK (&values)[VEC]) {
    unsigned entry = p.fills + i * p.fill;
#if FILL == 2
    unsigned kind = word(p, entry + p.fill_values);
    float std = __uint_as_float(word(p, entry + p.fill_values + 1));
    if (kind) {
        Noise noise(word(p, entry + p.fill_values + 2), word(p, entry + p.fill_values + 3));
        WORK drawn[VEC];
        // Rolled: VEC copies of the generator take seconds to compile. What it draws waits in memory of the thread's own.
#pragma unroll 1
        for (int i = 0; i < VEC; i++) {
            if (!(mask >> i & 1)) continue;
            unsigned channel = channel_of(p, e + i);
            float value = __uint_as_float(word(p, entry + (p.fill_values > 1 ? channel : 0)));
            float normal = noise.at(channel, kind == 2 ? position_of(p, item + i) : 0);
            drawn[i] = Painted<WORK, IN>::of(__fadd_rn(value, __fmul_rn(std, normal)));
        }
#pragma unroll
        for (int i = 0; i < VEC; i++) values[i] = drawn[i];
        return;
    }
#endif
#pragma unroll
    for (int i = 0; i < VEC; i++) {
        if (!(mask >> i & 1)) continue;
        unsigned channel = p.fill_values > 1 ? channel_of(p, e + i) : 0;
        values[i] = Painted<WORK, IN>::of(__uint_as_float(word(p, entry + channel)));
    }
}

__device__ inline void donate(const Mix &p, unsigned patch, int row, unsigned e, Mask mask, WORK (&values)[VEC]) {
    const byte *from = p.x + row * p.x_step;
#if SHIFT
    int shift = 0;
#pragma unroll
    for (int r = 0; r < RANK; r++) shift += (int)word(p, patch + 2 + BOX_WORDS + r) * (int)p.shift_step[r];
    from += ((long long)e + shift) * (int)sizeof(IN);
    if (shift % VEC) {  // its vectors begin between those of the row, which could end beyond it
#pragma unroll
        for (int i = 0; i < VEC; i++) {
            if (!(mask >> i & 1)) continue;
            Run<IN, 1> run;
            read(from + i * (int)sizeof(IN), run);
            values[i] = (WORK)widened(run.element[0]);
        }
        return;
    }
#else
    from += e * (wide_word)sizeof(IN);
#endif
    gather(from, values);
}

// What is laid takes the place of ``other``: one question for all elements whether anything has to be blended.
__device__ inline void lay(Mask mask, float o, WORK (&other)[VEC], WORK (&own)[VEC]) {
    if (VALID || o != 1.f) {
#pragma unroll
        for (int i = 0; i < VEC; i++) {
            if (VALID) other[i] = own[i] < other[i] ? other[i] : own[i];
            else other[i] = blended(own[i], other[i], o);
        }
    }
#pragma unroll
    for (int i = 0; i < VEC; i++) own[i] = mask >> i & 1 ? other[i] : own[i];
}

// The elements e, e + 1, ... of a row of the plan. False if no patch touches them: they are then those of the base row.
__device__ inline bool painted(const Mix &p, unsigned record, unsigned e, unsigned item, WORK (&values)[VEC]) {
    const int patches = PATCHES ? PATCHES : (int)p.patches;
    // An opaque patch that covers everything hides what lies under it: that is not even read, so no NaN of it can leak.
    int from = 0;
    bool hidden = false, looked = false;
    Mask only = 0;  // of the only patch, once it has been looked at
    if (!VALID)
        for (int k = patches - 1; k >= 0 && !hidden; k--) {
            unsigned patch = record + 2 + k * PATCH_WORDS;
            bool skipped = FILL && p.leave_fills && (int)word(p, patch) < 0;
            if (!skipped && __uint_as_float(word(p, patch + 1)) == 1.f) {
                only = inside(p, patch, e);
                looked = PATCHES == 1;
                if (only == ALL) hidden = true, from = k;
            }
        }
    bool touched = false;
    if (!hidden) gather(p.x + (int)word(p, record) * p.x_step + e * (wide_word)sizeof(IN), values);
    for (int k = from; k < patches; k++) {
        unsigned patch = record + 2 + k * PATCH_WORDS;
        float o = __uint_as_float(word(p, patch + 1));
        if (o == 0.f) continue;
        Mask mask = looked ? only : inside(p, patch, e);
        if (!mask) continue;
        int partner = (int)word(p, patch);
        WORK other[VEC];
#if FILL
        if (partner < 0) {
            if (p.leave_fills) continue;
            fill(p, (unsigned)(-1 - partner), e, item, mask, other);
        } else
#endif
            donate(p, patch, partner, e, mask, other);
        lay(mask, o, other, values);
        touched = true;
    }
    return touched;
}

// -- What leaves ------------------------------------------------------------------------------------------------------

__device__ inline WORK scale_of(const Mix &p, unsigned c) {
    return (WORK)(FACTORS == 3 ? fetch_constant(p.factors + c) : p.scale[c]);
}
__device__ inline WORK offset_of(const Mix &p, unsigned c) {
    return (WORK)(FACTORS == 3 ? fetch_constant(p.factors + p.channels + c) : p.offset[c]);
}

// Normalise in the type of the work; e is where the first of the values lies in the source.
__device__ inline void normalise(const Mix &p, unsigned e, WORK (&values)[VEC]) {
#if FACTORS == 1
#pragma unroll
    for (int i = 0; i < VEC; i++) values[i] = values[i] * scale_of(p, 0) + offset_of(p, 0);
#elif FACTORS == 2 && INSIDE
    WORK scale[INSIDE], offset[INSIDE];  // turned so that element i takes number i % INSIDE, known when compiled
    unsigned c = STORE == PLANES ? 0 : channel_of(p, e);
#pragma unroll
    for (int i = 0; i < INSIDE; i++) {
        scale[i] = scale_of(p, c);
        offset[i] = offset_of(p, c);
        c = c + 1 == INSIDE ? 0 : c + 1;
    }
#pragma unroll
    for (int i = 0; i < VEC; i++) values[i] = values[i] * scale[i % INSIDE] + offset[i % INSIDE];
#elif FACTORS >= 2
    unsigned run = over(e, p.channel), left = (run + 1) * p.channel_size - e, c = channel_of(p, e);
    WORK scale = scale_of(p, c), offset = offset_of(p, c);
#pragma unroll
    for (int i = 0; i < VEC; i++) {
        if (VEC > 1 && (unsigned)i == left) {  // the next channel begins
            left += p.channel_size;
            c = c + 1 == p.channels ? 0 : c + 1;
            scale = scale_of(p, c);
            offset = offset_of(p, c);
        }
        values[i] = values[i] * scale + offset;
    }
#endif
}

#if STORE == PIXELS
// Channels come from as many planes and leave together, pixel by pixel.
__device__ inline void interleave(const Mix &p, unsigned record, byte *row, unsigned item) {
    Run<OUT, VEC * CHANNELS> run;
#pragma unroll
    for (int c = 0; c < CHANNELS; c++) {
        WORK values[VEC];
        unsigned e = (c * p.items + item) * VEC;
        painted(p, record, e, e, values);
        normalise(p, e, values);
#pragma unroll
        for (int i = 0; i < VEC; i++) run.element[i * CHANNELS + c] = Narrowed<WORK, OUT>::of(values[i]);
    }
    write(row + item * (wide_word)(VEC * CHANNELS * sizeof(OUT)), run);
}
#else
__device__ inline void leave(const Mix &p, byte *row, unsigned item, unsigned e, WORK (&values)[VEC]) {
    normalise(p, e, values);
#if STORE == PLANES
    const int PIXEL_COUNT = VEC / CHANNELS;
#pragma unroll
    for (int c = 0; c < CHANNELS; c++) {
        Run<OUT, PIXEL_COUNT> run;
#pragma unroll
        for (int i = 0; i < PIXEL_COUNT; i++) run.element[i] = Narrowed<WORK, OUT>::of(values[i * CHANNELS + c]);
        write(row + c * p.plane + item * (wide_word)(PIXEL_COUNT * sizeof(OUT)), run);
    }
#else
    Run<OUT, VEC> run;
#pragma unroll
    for (int i = 0; i < VEC; i++) run.element[i] = Narrowed<WORK, OUT>::of(values[i]);
#if STORE == SAME
    write(row + e * (wide_word)sizeof(OUT), run);
#else
    long long to = 0;
#pragma unroll
    for (int a = AXES - 1; a >= 0; a--) {
        unsigned outer = over(item, p.axis[a].extent);
        to += (item - outer * p.axis[a].size) * p.axis[a].out_step;
        item = outer;
    }
    write(row + to, run);
#endif
#endif
}
#endif

#if STORE == ANY
// The element of the source that an element of the result comes from.
__device__ inline unsigned source_of(const Mix &p, unsigned item) {
    unsigned e = 0;
#pragma unroll
    for (int a = AXES - 1; a >= 0; a--) {
        unsigned outer = over(item, p.axis[a].extent);
        e += (item - outer * p.axis[a].size) * p.axis[a].in_step;
        item = outer;
    }
    return e;
}
#endif

extern "C" __global__ void mix(const __grid_constant__ Mix p) {
    const unsigned step = gridDim.y * blockDim.x;
    for (unsigned item = blockIdx.y * blockDim.x + threadIdx.x; item < p.items; item += step) {
#if PAIRS
        // Both are painted before either is written.
        unsigned one = 2 * blockIdx.x * p.record, two = one + p.record, e = item * VEC;
        int other = (int)word(p, two + 1);
        WORK values[VEC], others[VEC];
        bool touched = painted(p, one, e, e, values);
        bool both = other >= 0 && painted(p, two, e, e, others);
        if (touched) leave(p, p.out + (int)word(p, one + 1) * p.out_step, item, e, values);
        if (both) leave(p, p.out + other * p.out_step, item, e, others);
#else
        unsigned record = blockIdx.x * p.record;
        byte *row = p.out + (long long)blockIdx.x * p.out_step;
#if STORE == PIXELS
        interleave(p, record, row, item);
#else
#if STORE == ANY
        unsigned e = source_of(p, item);
#else
        unsigned e = item * VEC;
#endif
        WORK values[VEC];
        painted(p, record, e, STORE == ANY ? item : e, values);
        leave(p, row, item, e, values);
#endif
#endif
    }
}
