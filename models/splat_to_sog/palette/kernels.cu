// Nearest entry of every row on a GPU, without ever holding a rows x entries matrix; and the sums
// that move the entries. Knows no splats, no files and no CUDA headers: NVRTC compiles it alone.
//
// A row's nearest entry has the largest score  x.e - |e|^2/2 + C.  The matrix units take
// x and e as half precision, with |e|^2/2 and the rest in three more columns (the halves of a
// float) against ones in the rows. C makes the best score of every row positive, so that the bits
// of a score compare as an integer: three of them in one instruction on sm_90. A thread keeps only
// which group of 16 entries held its maximum; `rescore` then finds the winner among those 16 in
// single precision, which also repairs what half precision had mistaken among them.
//
// Compiled with -DKSTEPS=n: columns are padded to 16 n.

#define COLUMNS (16 * KSTEPS)
#define CHUNKS (2 * KSTEPS)  // of 8 halves: 16 bytes, one row of an 8 x 8 matrix
#define TILE 128             // entries that are in shared memory at once
#define TILE_HALVES (TILE * COLUMNS)
#define STAGES 3
#define GROUP 16

typedef unsigned short half_t;
typedef unsigned long long u64;

__device__ __forceinline__ half_t to_half(float value) {
    half_t out;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(out) : "f"(value));
    return out;
}

__device__ __forceinline__ float to_float(half_t value) {
    float out;
    asm("cvt.f32.f16 %0, %1;" : "=f"(out) : "h"(value));
    return out;
}

__device__ __forceinline__ int max3(int a, float b, float c) {
    return max(max(a, __float_as_int(b)), __float_as_int(c));
}

// Entries lie in tiles of 128, each as CHUNKS x 128 x 8 halves: what ldmatrix and wgmma read
// without bank conflicts. A thread of a warp holds columns 2 t, 2 t + 1 of every 8; the order in a
// tile makes those of 8 successive eights neighbours: group (tile, half, t) is 16 entries in a row.
__device__ __forceinline__ int place_of(int entry) {
    int in_tile = entry % TILE, half = in_tile / 64, t = in_tile / GROUP % 4, i = in_tile % GROUP;
    return half * 64 + i / 2 * 8 + 2 * t + i % 2;
}

// ---------------------------------------------------------------------------------- operands

extern "C" __global__ void pack_rows(
    const float* x,     // [n, d]
    const float* mean,  // [d]
    float scale, int n, int d, int padded,
    half_t* out)        // [padded, COLUMNS]
{
    int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= padded * COLUMNS) return;
    int row = at / COLUMNS, k = at % COLUMNS;
    float value = k < d + 3 ? 1.0f : 0.0f;
    if (k < d) value = row < n ? (x[(long long)row * d + k] - mean[k]) * scale : 0.0f;
    out[at] = to_half(fminf(fmaxf(value, -6e4f), 6e4f));
}

extern "C" __global__ void score_bias(
    const float* entries,  // [k, d]
    const float* mean,     // [d]
    float scale, float row_limit, int count, int d,
    float* bias,   // [k] -|e|^2/2 of the entry as rounded
    float* least)  // [k] no row of norm <= row_limit can score less
{
    int e = blockIdx.x * blockDim.x + threadIdx.x;
    if (e >= count) return;
    float norm = 0.0f;
    for (int k = 0; k < d; k++) {
        float value = to_float(to_half((entries[e * d + k] - mean[k]) * scale));
        norm += value * value;
    }
    float b = -0.5f * norm;
    if (!(b > -3e4f)) b = -3e4f;  // beyond every row that is asked: never chosen
    bias[e] = b;
    least[e] = b - row_limit * sqrtf(norm);
}

extern "C" __global__ void pack_entries(
    const float* entries, const float* mean, const float* bias,
    const float* floor_,  // [1] largest of `least`
    float scale, int count, int padded, int d,
    half_t* out,      // [padded / TILE, CHUNKS, TILE, 8]
    float* grouped)   // [padded / GROUP, d, GROUP], as given
{
    int e = blockIdx.x * blockDim.x + threadIdx.x;
    if (e >= padded) return;
    half_t* to = out + (long long)(e / TILE) * TILE_HALVES + place_of(e) * 8;
    float b = -6e4f;
    if (e < count && bias[e] > -3e4f) b = bias[e] - floor_[0] * 1.001f + 1.0f;
    for (int k = 0; k < COLUMNS; k++) {
        float value = 0.0f;
        if (k < d && b > -3e4f) value = (entries[(long long)e * d + k] - mean[k]) * scale;
        else if (k >= d && k < d + 3) value = b;
        half_t h = to_half(value);
        if (k >= d && k < d + 3) b -= to_float(h);
        to[k / 8 * TILE * 8 + k % 8] = h;
    }
    for (int k = 0; k < d; k++)
        grouped[((long long)(e / GROUP) * d + k) * GROUP + e % GROUP] =
            e < count ? entries[(long long)e * d + k] : 1e18f;
}

// ------------------------------------------------------------------------------ matrix units

__device__ __forceinline__ unsigned shared_address(const void* pointer) {
    return (unsigned)__cvta_generic_to_shared(pointer);
}

__device__ __forceinline__ void fragments_of_rows(
    const half_t* rows, long long row, int lane, unsigned a[KSTEPS][4])
{
    const unsigned* upper = (const unsigned*)(rows + (row + lane / 4) * COLUMNS) + lane % 4;
    const unsigned* lower = upper + 8 * COLUMNS / 2;
#pragma unroll
    for (int s = 0; s < KSTEPS; s++) {
        a[s][0] = upper[8 * s];
        a[s][1] = lower[8 * s];
        a[s][2] = upper[8 * s + 4];
        a[s][3] = lower[8 * s + 4];
    }
}

// The four threads that share a row agree; ties go to the group of lower number.
__device__ __forceinline__ void write_group(
    int best, int where, int lane, long long row, int n, int* group)
{
    int mine = where / 2 * 8 + where % 2 * 4 + lane % 4;
    for (int step = 1; step < 4; step *= 2) {
        int other = __shfl_xor_sync(0xffffffffu, best, step);
        int theirs = __shfl_xor_sync(0xffffffffu, mine, step);
        if (other > best || (other == best && theirs < mine)) best = other, mine = theirs;
    }
    if (lane % 4 == 0 && row < n) group[row] = mine;
}

#define WARPS 4
#define BLOCKS 4  // of 16 rows a warp holds

__device__ __forceinline__ void multiply(float c[4], const unsigned a[4], unsigned b0, unsigned b1)
{
#if __CUDA_ARCH__ >= 800
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 "
        "{%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(b0));
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 "
        "{%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[2]), "r"(a[3]), "r"(b1));
#endif
}

__device__ __forceinline__ void copy_tile(half_t* to, const half_t* from, int thread)
{
#pragma unroll
    for (int at = 0; at < TILE_HALVES / 8; at += 32 * WARPS) {
        int word = at + thread;
#if __CUDA_ARCH__ >= 800
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;"
                     :: "r"(shared_address(to + 8 * word)), "l"(from + 8 * word) : "memory");
#else
        ((uint4*)to)[word] = ((const uint4*)from)[word];
#endif
    }
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Any card from sm_75: warps of 64 rows against tiles of entries in shared memory.
extern "C" __global__ void __launch_bounds__(32 * WARPS) assign(
    const half_t* rows,     // [rows, COLUMNS], a multiple of 256 rows
    const half_t* entries,  // [tiles, CHUNKS, TILE, 8]
    int n, int tiles,
    int* group)             // [n]
{
    __shared__ __align__(128) half_t tile[STAGES][TILE_HALVES];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    long long row = ((long long)blockIdx.x * WARPS + warp) * (16 * BLOCKS);
    unsigned a[BLOCKS][KSTEPS][4];
    int best[BLOCKS][2], where[BLOCKS][2];
#pragma unroll
    for (int m = 0; m < BLOCKS; m++) {
        fragments_of_rows(rows, row + 16 * m, lane, a[m]);
        best[m][0] = best[m][1] = where[m][0] = where[m][1] = 0;
    }
    for (int t = 0; t < STAGES - 1; t++)
        if (t < tiles) copy_tile(tile[t], entries + (long long)t * TILE_HALVES, threadIdx.x);
    for (int t = 0; t < tiles; t++) {
#if __CUDA_ARCH__ >= 800
        if (t + 1 < tiles) asm volatile("cp.async.wait_group %0;" ::"n"(STAGES - 2) : "memory");
        else asm volatile("cp.async.wait_group 0;" ::: "memory");
#endif
        __syncthreads();  // tile t is here, and tile t - 1 is no longer read
        int next = t + STAGES - 1;
        if (next < tiles)
            copy_tile(tile[next % STAGES], entries + (long long)next * TILE_HALVES, threadIdx.x);
        unsigned from = shared_address(tile[t % STAGES] + lane / 8 * TILE * 8 + lane % 8 * 8);
#pragma unroll 1
        for (int half = 0; half < 2; half++) {
            int top[BLOCKS][2];
#pragma unroll
            for (int m = 0; m < BLOCKS; m++) top[m][0] = top[m][1] = 0;
#pragma unroll 2
            for (int i = 0; i < 8; i++) {
                unsigned at = from + (half * 8 + i) * 128;
                unsigned b[2 * CHUNKS];
#pragma unroll
                for (int c = 0; c < CHUNKS; c += 4) {
                    if (c + 4 <= CHUNKS)
                        asm volatile(
                            "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                            : "=r"(b[c]), "=r"(b[c + 1]), "=r"(b[c + 2]), "=r"(b[c + 3])
                            : "r"(at + c * TILE * 16));
                    else  // lanes 16 to 31 give addresses that are not used
                        asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
                                     : "=r"(b[c]), "=r"(b[c + 1])
                                     : "r"(at + (c - (lane / 16) * 2) * TILE * 16));
                }
#pragma unroll
                for (int m = 0; m < BLOCKS; m++) {
                    float c[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
                    for (int s = 0; s < KSTEPS; s++) multiply(c, a[m][s], b[2 * s], b[2 * s + 1]);
                    top[m][0] = max3(top[m][0], c[0], c[1]);
                    top[m][1] = max3(top[m][1], c[2], c[3]);
                }
            }
#pragma unroll
            for (int m = 0; m < BLOCKS; m++)
#pragma unroll
                for (int h = 0; h < 2; h++)
                    if (top[m][h] > best[m][h]) best[m][h] = top[m][h], where[m][h] = 2 * t + half;
        }
    }
#pragma unroll
    for (int m = 0; m < BLOCKS; m++)
#pragma unroll
        for (int h = 0; h < 2; h++)
            write_group(best[m][h], where[m][h], lane, row + 16 * m + 8 * h + lane / 4, n, group);
}

#ifdef WGMMA  // sm_90a: asynchronous matrix units, fed by the bulk copy engine
// Two warpgroups of 256 rows each and one warp that fetches tiles. Two accumulators a warpgroup:
// while one fills, the maxima of the other are taken.

#define HOPPER_BLOCKS 4  // of 64 rows a warpgroup holds
#define CONSUMERS 8      // warps

__device__ __forceinline__ void wait_for(unsigned barrier, int parity)
{
    asm volatile(
        "{\n.reg .pred p;\nagain:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n"
        "@!p bra again;\n}" ::"r"(barrier), "r"(parity) : "memory");
}

#define F4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define F16(i) F4(i), F4(i + 4), F4(i + 8), F4(i + 12)

__device__ __forceinline__ void settle(float d[64])
{
    asm volatile("" : F16(0), F16(16)::"memory");
    asm volatile("" : F16(32), F16(48)::"memory");
}

__device__ __forceinline__ void multiply_async(float d[64], const unsigned a[4], u64 b, int add)
{
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %69, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 "
        "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
        "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,"
        "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,"
        "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63}, "
        "{%64,%65,%66,%67}, %68, p, 1, 1, 0;\n}"
        : F16(0), F16(16), F16(32), F16(48)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}

__device__ __forceinline__ void start(float d[64], const unsigned a[KSTEPS][4], unsigned tile)
{
    // No swizzle: the next 8 entries are 128 bytes on, the next 8 columns TILE x 16.
    const u64 layout = (u64)(TILE * 16 >> 4) << 16 | (u64)(128 >> 4) << 32;
    settle(d);
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
    for (int s = 0; s < KSTEPS; s++)
        multiply_async(d, a[s], layout | (tile + s * 2 * TILE * 16 & 0x3ffff) >> 4, s);
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

__device__ __forceinline__ void keep(const float d[64], int t, int best[2], int where[2])
{
#pragma unroll
    for (int half = 0; half < 2; half++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int top = 0;
#pragma unroll
            for (int i = 0; i < 8; i++) {
                const float* c = d + 4 * (half * 8 + i) + 2 * h;
                top = max3(top, c[0], c[1]);
            }
            if (top > best[h]) best[h] = top, where[h] = 2 * t + half;
        }
}

extern "C" __global__ void __launch_bounds__(32 * CONSUMERS + 128, 1) assign_hopper(
    const half_t* rows,     // [rows, COLUMNS], a multiple of 512 rows
    const half_t* entries,  // [tiles, CHUNKS, TILE, 8]
    int n, int tiles,
    int* group)             // [n]
{
    __shared__ __align__(1024) half_t tile[STAGES][TILE_HALVES];
    __shared__ __align__(8) u64 full[STAGES], empty[STAGES];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    if (threadIdx.x == 0) {
        for (int s = 0; s < STAGES; s++) {
            asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(full + s)));
            asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;"
                         ::"r"(shared_address(empty + s)), "n"(CONSUMERS));
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
    if (warp >= CONSUMERS) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
        if (threadIdx.x == 32 * CONSUMERS)
            for (int t = 0; t < tiles; t++) {
                int s = t % STAGES;
                wait_for(shared_address(empty + s), t / STAGES + 1 & 1);
                asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;"
                             ::"r"(shared_address(full + s)), "n"(TILE_HALVES * 2) : "memory");
                asm volatile(
                    "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes "
                    "[%0], [%1], %2, [%3];"
                    ::"r"(shared_address(tile[s])), "l"(entries + (long long)t * TILE_HALVES),
                    "n"(TILE_HALVES * 2), "r"(shared_address(full + s)) : "memory");
            }
        return;
    }
    asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
    long long row = (long long)blockIdx.x * 512 + warp / 4 * 256 + warp % 4 * 16;
    unsigned a[HOPPER_BLOCKS][KSTEPS][4];
    int best[HOPPER_BLOCKS][2], where[HOPPER_BLOCKS][2];
    float even[64], odd[64];
#pragma unroll
    for (int m = 0; m < HOPPER_BLOCKS; m++) {
        fragments_of_rows(rows, row + 64 * m, lane, a[m]);
        best[m][0] = best[m][1] = where[m][0] = where[m][1] = 0;
    }
#define AWAIT_ALL_BUT(count, d) \
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(count) : "memory"); \
    settle(d);
    for (int t = 0; t < tiles; t++) {
        unsigned from = shared_address(tile[t % STAGES]);
        wait_for(shared_address(full + t % STAGES), t / STAGES & 1);
        start(even, a[0], from);
        start(odd, a[1], from);
        AWAIT_ALL_BUT(1, even)
        keep(even, t, best[0], where[0]);
        start(even, a[2], from);
        AWAIT_ALL_BUT(1, odd)
        keep(odd, t, best[1], where[1]);
        start(odd, a[3], from);
        AWAIT_ALL_BUT(1, even)
        keep(even, t, best[2], where[2]);
        AWAIT_ALL_BUT(0, odd)
        if (lane == 0)  // this warp reads the tile no more
            asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];"
                         ::"r"(shared_address(empty + t % STAGES)) : "memory");
        keep(odd, t, best[3], where[3]);  // the other warpgroup keeps the matrix units busy
    }
#pragma unroll
    for (int m = 0; m < HOPPER_BLOCKS; m++)
#pragma unroll
        for (int h = 0; h < 2; h++)
            write_group(best[m][h], where[m][h], lane, row + 64 * m + 8 * h + lane / 4, n, group);
}
#endif

// ------------------------------------------------------------------------------- the rest

// The winner among the 16 entries of a row's group, in single precision: half a warp a row.
extern "C" __global__ void rescore(
    const float* x, const float* grouped, const int* group,
    int n, int d, int count,
    int* label, float* distance)  // [n], squared
{
    int row = (blockIdx.x * blockDim.x + threadIdx.x) / GROUP, lane = threadIdx.x % GROUP;
    bool real = row < n;
    if (!real) row = n - 1;
    int g = group[row], entry = g * GROUP + lane;
    const float* e = grouped + (long long)g * d * GROUP + lane;
    const float* v = x + (long long)row * d;
    float sum = 0.0f;
    for (int k = 0; k < d; k++) {
        float gap = v[k] - e[k * GROUP];
        sum += gap * gap;
    }
    if (entry >= count) sum = 3e38f;
    for (int step = 1; step < GROUP; step *= 2) {
        float other = __shfl_xor_sync(0xffffffffu, sum, step);
        int its = __shfl_xor_sync(0xffffffffu, entry, step);
        if (other < sum || (other == sum && its < entry)) sum = other, entry = its;
    }
    if (real && lane == 0) label[row] = entry, distance[row] = sum;
}

#define SUM_WARPS 8

// Weighted mean of each entry's rows, always summed in the same order: the same bytes every run.
extern "C" __global__ void __launch_bounds__(32 * SUM_WARPS) move_entries(
    const float* x, const float* weights,  // [n, d], [n]
    const int* order, const int* starts,   // [n] rows sorted by label, [count + 1]
    int d,                                 // at most 64
    float* entries)                        // [count, d]; those without rows stay
{
    __shared__ float part[SUM_WARPS][65];
    int e = blockIdx.x, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int from = starts[e], to = starts[e + 1];
    if (from == to) return;
    float low = 0.0f, high = 0.0f, total = 0.0f;
#pragma unroll 4
    for (int i = from + warp; i < to; i += SUM_WARPS) {
        int row = order[i];
        float w = weights[row];
        const float* v = x + (long long)row * d;
        if (lane < d) low += w * v[lane];
        if (lane + 32 < d) high += w * v[lane + 32];
        total += w;
    }
    part[warp][lane] = low;
    part[warp][lane + 32] = high;
    if (lane == 0) part[warp][64] = total;
    __syncthreads();
    if (threadIdx.x >= d) return;
    float sum = 0.0f, weight = 0.0f;
    for (int w = 0; w < SUM_WARPS; w++) {
        sum += part[w][threadIdx.x];
        weight += part[w][64];
    }
    if (weight > 0.0f) entries[(long long)e * d + threadIdx.x] = sum / weight;
}

// Keys whose smallest are a draw without repetition in proportion to `odds`: exponential races.
extern "C" __global__ void draw_keys(const float* odds, unsigned seed, int n, float* key)
{
    int row = blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= n) return;
    u64 z = ((u64)seed << 32) + row;  // splitmix64
    z = (z + 1) * 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    z ^= z >> 31;
    float uniform = ((unsigned)(z >> 40) + 0.5f) * (1.0f / 16777216.0f);
    key[row] = odds[row] > 0.0f ? -logf(uniform) / odds[row] : 3e38f;
}
