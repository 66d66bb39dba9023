// The gradient of blend() in rasterise_cuda.cu, which is compiled before this in the same unit.

__device__ float warp_sum(float value)
{
    for (int step = 16; step; step >>= 1) value += __shfl_xor_sync(0xffffffffu, value, step);
    return value;
}

// One block a tile, one thread a pixel; each pixel walks its Gaussians back to front, so that the
// light from behind is known when a Gaussian's own gradient is due. The capped alpha is flat.
extern "C" __global__ void __launch_bounds__(BATCH) blend_backward(
    int width, int height, const long long* starts, const Key* keys, const float* means2d,
    const float* conics, const float* colours, const float* opacities, float back_red,
    float back_green, float back_blue, const float* transmittance, const long long* last,
    const float* grad_picture, float* grad_means2d, float* grad_conics, float* grad_colours,
    float* grad_opacities)
{
    __shared__ Gaussian batch[BATCH];
    __shared__ unsigned ranks[BATCH];
    __shared__ int longest;
    int thread = threadIdx.y * TILE + threadIdx.x;
    int column = blockIdx.x * TILE + threadIdx.x, row = blockIdx.y * TILE + threadIdx.y;
    bool inside = column < width && row < height;
    int pixel = row * width + column;
    long long begin = starts[blockIdx.y * gridDim.x + blockIdx.x];
    int mine = inside ? (int)(last[pixel] - begin) : 0;
    float through = inside ? transmittance[pixel] : 1;
    float dr = inside ? grad_picture[3 * pixel] : 0, dg = inside ? grad_picture[3 * pixel + 1] : 0,
          db = inside ? grad_picture[3 * pixel + 2] : 0;
    float behind = through * (back_red * dr + back_green * dg + back_blue * db);

    if (thread == 0) longest = 0;
    __syncthreads();
    atomicMax(&longest, mine);
    __syncthreads();
    for (int stop = longest; stop > 0; stop -= BATCH) {
        int count = min(BATCH, stop);
        __syncthreads();
        if (thread < count) {
            ranks[thread] = (unsigned)keys[begin + stop - 1 - thread];
            batch[thread] = load(ranks[thread], means2d, conics, colours, opacities);
        }
        __syncthreads();
        for (int k = 0; k < count; ++k) {
            const Gaussian& g = batch[k];
            float dx = column + 0.5f - g.x, dy = row + 0.5f - g.y;
            float fall = falloff(g, dx, dy), raw = g.opacity * fall;
            float alpha = fminf(ALPHA_MAX, raw);
            bool active = stop - 1 - k < mine && alpha >= ALPHA_MIN;
            if (!__any_sync(0xffffffffu, active)) continue;
            float weight = 0, d_power = 0, d_opacity = 0;
            if (active) {
                through /= 1 - alpha;
                weight = alpha * through;
                float own = g.red * dr + g.green * dg + g.blue * db;
                float d_alpha = through * own - behind / (1 - alpha);
                behind += weight * own;
                if (raw < ALPHA_MAX) {
                    d_power = alpha * d_alpha;
                    d_opacity = fall * d_alpha;
                }
            }
            float sums[9] = {(g.a * dx + g.b * dy) * d_power, (g.b * dx + g.c * dy) * d_power,
                             -0.5f * dx * dx * d_power, -dx * dy * d_power,
                             -0.5f * dy * dy * d_power, weight * dr, weight * dg, weight * db,
                             d_opacity};
            for (int j = 0; j < 9; ++j) sums[j] = warp_sum(sums[j]);
            if ((thread & 31) == 0) {
                unsigned rank = ranks[k];
                for (int j = 0; j < 2; ++j) atomicAdd(grad_means2d + 2 * rank + j, sums[j]);
                for (int j = 0; j < 3; ++j) atomicAdd(grad_conics + 3 * rank + j, sums[2 + j]);
                for (int j = 0; j < 3; ++j) atomicAdd(grad_colours + 3 * rank + j, sums[5 + j]);
                atomicAdd(grad_opacities + rank, sums[8]);
            }
        }
    }
}
