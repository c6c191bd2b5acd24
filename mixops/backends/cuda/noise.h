// The numbers of noise.py, bit for bit: Philox4x32-10 and a table of normal quantiles. noise.py's constants and its
// table stand in "constants.h".
#include "constants.h"

struct Noise {
    unsigned key0, key1, block, channel, x0, x1, x2, x3;
    bool fresh;  // nothing has been drawn yet

    __device__ Noise(unsigned low, unsigned high) : key0(low), key1(high), fresh(true) {}

    // A block serves four positions of a channel: along a line it is drawn once for all of them.
    __device__ float at(unsigned of_channel, unsigned position) {
        if (fresh || block != position >> 2 || channel != of_channel) {
            fresh = false;
            block = position >> 2;
            channel = of_channel;
            draw();
        }
        unsigned word = position & 2 ? (position & 1 ? x3 : x2) : (position & 1 ? x1 : x0);
        const unsigned low = (1u << TABLE_BITS) - 1;
        float sum = __fadd_rn(quantile(word & low), quantile(word >> TABLE_BITS & low));
        return __fmul_rn(sum, __uint_as_float(NOISE_SCALE));
    }

    __device__ void draw() {
        unsigned k0 = key0, k1 = key1;
        x0 = block;
        x1 = channel;
        x2 = x3 = 0;
        for (int round = 0; round < 10; round++, k0 += W0, k1 += W1) {
            unsigned high0 = __umulhi(M0, x0), low0 = M0 * x0, high1 = __umulhi(M1, x2), low1 = M1 * x2;
            x0 = high1 ^ x1 ^ k0;
            x1 = low1;
            x2 = high0 ^ x3 ^ k1;
            x3 = low0;
        }
    }

    __device__ static float quantile(unsigned i) { return __uint_as_float(QUANTILES[i]); }
};
