// Projection, tile binning and front-to-back blending of Gaussians, for NVRTC: no headers needed.
// The plain version of blend() is rasterise.py; names, units and limits are the same here.

#define TILE 16
#define BATCH (TILE * TILE)

__device__ const float ALPHA_MIN = 1.0f / 255.0f;
__device__ const float ALPHA_MAX = 0.99f;
__device__ const float TRANSMITTANCE_MIN = 1e-4f;
__device__ const float LOW_PASS_PX2 = 0.3f;   // added to both variances: no splat is under a pixel
__device__ const float FRUSTUM_MARGIN = 1.3f; // of the half picture: centres beyond are not drawn

typedef unsigned long long Key; // tile << 32 | rank, rank 0 being the nearest Gaussian

// ---- projection -------------------------------------------------------------------------------

// Sum over the bands above the constant one; coeff[k] of one channel, d the unit view direction.
__device__ float harmonics(const float* coeff, int count, float x, float y, float z)
{
    float sum = 0.4886025119029199f * (-y * coeff[0] + z * coeff[1] - x * coeff[2]);
    if (count < 8) return sum;
    float xx = x * x, yy = y * y, zz = z * z;
    sum += 1.0925484305920792f * (x * y * coeff[3] - y * z * coeff[4] - x * z * coeff[6])
         + 0.31539156525252005f * (2 * zz - xx - yy) * coeff[5]
         + 0.5462742152960396f * (xx - yy) * coeff[7];
    if (count < 15) return sum;
    sum += -0.5900435899266435f * (y * (3 * xx - yy) * coeff[8] + x * (xx - 3 * yy) * coeff[14])
         + 2.890611442640554f * x * y * z * coeff[9]
         - 0.4570457994644658f * (4 * zz - xx - yy) * (y * coeff[10] + x * coeff[12])
         + 0.3731763325901154f * z * (2 * zz - 3 * xx - 3 * yy) * coeff[11]
         + 1.445305721320277f * z * (xx - yy) * coeff[13];
    if (count < 24) return sum;
    sum += 2.5033429417967046f * x * y * (xx - yy) * coeff[15]
         - 1.7701307697799304f * z * (y * (3 * xx - yy) * coeff[16] + x * (xx - 3 * yy) * coeff[22])
         + 0.9461746957575601f * x * y * (7 * zz - 1) * coeff[17]
         - 0.6690465435572892f * z * (7 * zz - 3) * (y * coeff[18] + x * coeff[20])
         + 0.10578554691520431f * (zz * (35 * zz - 30) + 3) * coeff[19]
         + 0.47308734787878004f * (xx - yy) * (7 * zz - 1) * coeff[21]
         + 0.6258357354491761f * (xx * (xx - 3 * yy) - yy * (3 * xx - yy)) * coeff[23];
    return sum;
}

// camera: position[3], rotation[9] row by row (right, down, forward), focal_px, near.
// order: depth as float bits << 32 | row, so that one sort puts the nearest first and, at equal
// depth, the earlier row; all ones for a Gaussian that is not drawn, whose other outputs are left
// unwritten.
extern "C" __global__ void project(
    int n, const float* means, const float* scales, const float* quats, const float* opacities,
    const float* sh0, const float* shN, int coefficients, const float* camera, int width,
    int height, int antialiased, float* means2d, float* conics, float* colours, float* alphas,
    float* radii, Key* order)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    order[i] = ~0ull;

    const float* rot = camera + 3;
    float focal = camera[12], near = camera[13];
    float ox = means[3 * i] - camera[0], oy = means[3 * i + 1] - camera[1],
          oz = means[3 * i + 2] - camera[2];
    float x = rot[0] * ox + rot[1] * oy + rot[2] * oz;
    float y = rot[3] * ox + rot[4] * oy + rot[5] * oz;
    float z = rot[6] * ox + rot[7] * oy + rot[8] * oz;
    float limit_x = FRUSTUM_MARGIN * width / (2 * focal),
          limit_y = FRUSTUM_MARGIN * height / (2 * focal);
    if (!(z > near) || fabsf(x) >= limit_x * z || fabsf(y) >= limit_y * z) return;

    // Local affine approximation: rows t0, t1 of (Jacobian of the projection) * (world -> camera).
    float inverse_z = focal / z, slope_x = x / z, slope_y = y / z;
    float t0[3], t1[3];
    for (int k = 0; k < 3; ++k) {
        t0[k] = inverse_z * (rot[k] - slope_x * rot[6 + k]);
        t1[k] = inverse_z * (rot[3 + k] - slope_y * rot[6 + k]);
    }
    float qw = quats[4 * i], qx = quats[4 * i + 1], qy = quats[4 * i + 2], qz = quats[4 * i + 3];
    float norm = sqrtf(qw * qw + qx * qx + qy * qy + qz * qz);
    if (norm > 0) { qw /= norm; qx /= norm; qy /= norm; qz /= norm; } else qw = 1;
    float axes[3][3] = { // columns of the rotation matrix: the Gaussian's axes
        {1 - 2 * (qy * qy + qz * qz), 2 * (qx * qy + qw * qz), 2 * (qx * qz - qw * qy)},
        {2 * (qx * qy - qw * qz), 1 - 2 * (qx * qx + qz * qz), 2 * (qy * qz + qw * qx)},
        {2 * (qx * qz + qw * qy), 2 * (qy * qz - qw * qx), 1 - 2 * (qx * qx + qy * qy)}};
    float a = 0, b = 0, c = 0;
    for (int k = 0; k < 3; ++k) {
        float scale = expf(fminf(scales[3 * i + k], 20.0f));
        float u = scale * (t0[0] * axes[k][0] + t0[1] * axes[k][1] + t0[2] * axes[k][2]);
        float v = scale * (t1[0] * axes[k][0] + t1[1] * axes[k][1] + t1[2] * axes[k][2]);
        a += u * u;
        b += u * v;
        c += v * v;
    }
    float sharp = fmaxf(a * c - b * b, 0.0f);
    a += LOW_PASS_PX2;
    c += LOW_PASS_PX2;
    float det = fmaxf(a * c - b * b, 1e-12f);
    float alpha = 1 / (1 + expf(-opacities[i]));
    if (antialiased) alpha *= sqrtf(sharp / det);
    if (!(alpha > ALPHA_MIN)) return;

    float reach = 2 * logf(alpha * 255);
    float radius_x = sqrtf(reach * a), radius_y = sqrtf(reach * c);
    float mean_x = inverse_z * x + 0.5f * width, mean_y = inverse_z * y + 0.5f * height;
    if (!(mean_x + radius_x > 0 && mean_x - radius_x < width)) return;
    if (!(mean_y + radius_y > 0 && mean_y - radius_y < height)) return;

    float distance = fmaxf(sqrtf(ox * ox + oy * oy + oz * oz), 1e-30f);
    for (int k = 0; k < 3; ++k) {
        float colour = 0.5f + 0.28209479177387814f * sh0[3 * i + k];
        if (coefficients)
            colour += harmonics(shN + (size_t)(3 * (size_t)i + k) * coefficients, coefficients,
                                ox / distance, oy / distance, oz / distance);
        colours[3 * i + k] = fmaxf(colour, 0.0f);
    }
    means2d[2 * i] = mean_x;
    means2d[2 * i + 1] = mean_y;
    conics[3 * i] = c / det;
    conics[3 * i + 1] = -b / det;
    conics[3 * i + 2] = a / det;
    alphas[i] = alpha;
    radii[2 * i] = radius_x;
    radii[2 * i + 1] = radius_y;
    order[i] = (Key)__float_as_uint(z) << 32 | (Key)i;
}

// ---- tiles ------------------------------------------------------------------------------------

struct Box { int x0, x1, y0, y1; }; // tiles, end exclusive

__device__ Box tiles_of(const float* mean, const float* radius, int tiles_x, int tiles_y)
{
    Box box = {0, 0, 0, 0};
    if (!(radius[0] > 0 && radius[1] > 0)) return box; // not drawn
    // Clamped as floats: a far-off edge must not overflow an int.
    box.x0 = (int)fminf(fmaxf(floorf((mean[0] - radius[0]) / TILE), 0.0f), (float)tiles_x);
    box.x1 = (int)fminf(fmaxf(floorf((mean[0] + radius[0]) / TILE) + 1, 0.0f), (float)tiles_x);
    box.y0 = (int)fminf(fmaxf(floorf((mean[1] - radius[1]) / TILE), 0.0f), (float)tiles_y);
    box.y1 = (int)fminf(fmaxf(floorf((mean[1] + radius[1]) / TILE) + 1, 0.0f), (float)tiles_y);
    return box;
}

extern "C" __global__ void count_tiles(int n, const float* means2d, const float* radii, int tiles_x,
                                       int tiles_y, long long* counts)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    Box box = tiles_of(means2d + 2 * i, radii + 2 * i, tiles_x, tiles_y);
    counts[i] = (long long)max(box.x1 - box.x0, 0) * max(box.y1 - box.y0, 0);
}

extern "C" __global__ void emit_keys(int n, const float* means2d, const float* radii, int tiles_x,
                                     int tiles_y, const long long* ends, Key* keys)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    Box box = tiles_of(means2d + 2 * i, radii + 2 * i, tiles_x, tiles_y);
    long long at = i ? ends[i - 1] : 0;
    for (int y = box.y0; y < box.y1; ++y)
        for (int x = box.x0; x < box.x1; ++x)
            keys[at++] = (Key)(y * tiles_x + x) << 32 | (Key)i;
}

// starts[t]..starts[t + 1] are the sorted keys of tile t; one thread a key and one past the end.
extern "C" __global__ void find_starts(long long n, const Key* keys, int tiles, long long* starts)
{
    long long e = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (e > n) return;
    int before = e ? (int)(keys[e - 1] >> 32) : -1;
    int here = e < n ? (int)(keys[e] >> 32) : tiles;
    for (int tile = before + 1; tile <= here; ++tile) starts[tile] = e;
}

// ---- blending ---------------------------------------------------------------------------------

struct Gaussian { float x, y, a, b, c, opacity, red, green, blue; };

__device__ Gaussian load(unsigned rank, const float* means2d, const float* conics,
                         const float* colours, const float* opacities)
{
    Gaussian g;
    g.x = means2d[2 * rank];
    g.y = means2d[2 * rank + 1];
    g.a = conics[3 * rank];
    g.b = conics[3 * rank + 1];
    g.c = conics[3 * rank + 2];
    g.opacity = opacities[rank];
    g.red = colours[3 * rank];
    g.green = colours[3 * rank + 1];
    g.blue = colours[3 * rank + 2];
    return g;
}

__device__ float falloff(const Gaussian& g, float dx, float dy)
{
    float power = -0.5f * (g.a * dx * dx + g.c * dy * dy) - g.b * dx * dy;
    return power > 0 ? 0 : __expf(power); // above 0 only by rounding
}

// One block a tile, one thread a pixel. last[pixel]: one past the key that finished the pixel or
// was the last to touch it; with transmittance it is what a backward pass starts from.
extern "C" __global__ void __launch_bounds__(BATCH) blend(
    int width, int height, const long long* starts, const Key* keys, const float* means2d,
    const float* conics, const float* colours, const float* opacities, float back_red,
    float back_green, float back_blue, float* picture, float* transmittance, long long* last)
{
    __shared__ Gaussian batch[BATCH];
    int thread = threadIdx.y * TILE + threadIdx.x;
    int column = blockIdx.x * TILE + threadIdx.x, row = blockIdx.y * TILE + threadIdx.y;
    bool inside = column < width && row < height, done = !inside;
    int tile = blockIdx.y * gridDim.x + blockIdx.x;
    long long begin = starts[tile], end = starts[tile + 1], touched = begin;
    float red = 0, green = 0, blue = 0, through = 1;

    for (long long base = begin; base < end; base += BATCH) {
        if (__syncthreads_count(done) == BATCH) break;
        if (base + thread < end)
            batch[thread] = load((unsigned)keys[base + thread], means2d, conics, colours, opacities);
        __syncthreads();
        int count = (int)min((long long)BATCH, end - base);
        for (int k = 0; k < count && !done; ++k) {
            const Gaussian& g = batch[k];
            float alpha = fminf(ALPHA_MAX,
                                g.opacity * falloff(g, column + 0.5f - g.x, row + 0.5f - g.y));
            if (alpha < ALPHA_MIN) continue;
            float weight = alpha * through;
            red += weight * g.red;
            green += weight * g.green;
            blue += weight * g.blue;
            through *= 1 - alpha;
            touched = base + k + 1;
            done = through < TRANSMITTANCE_MIN;
        }
    }
    if (!inside) return;
    int pixel = row * width + column;
    picture[3 * pixel] = red + through * back_red;
    picture[3 * pixel + 1] = green + through * back_green;
    picture[3 * pixel + 2] = blue + through * back_blue;
    transmittance[pixel] = through;
    last[pixel] = touched;
}
