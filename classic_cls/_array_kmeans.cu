// What k-means does with rows on a GPU, where array code would go through all distances three times. The loader defines
// Number (float or double).
#include "_cuda.cuh"

// The column of each row where the half, less the product, is least; of equal ones the first. A warp takes a row.
extern "C" __global__ void nearest(const Number* products, int n_rows, int n_columns, const Number* halves,
                                   long long* columns) {
  for (size_t row = first_item(); row < n_rows; row += item_stride()) {
    const Number* product = products + row * n_columns;
    Number least = halves[0] - product[0];
    int column = 0;
#pragma unroll 4
    for (int k = lane(); k < n_columns; k += warpSize) {
      const Number distance = halves[k] - product[k];
      if (distance < least) least = distance, column = k;
    }
    for (int apart = warpSize / 2; apart > 0; apart /= 2) {
      const Number other = __shfl_xor_sync(0xffffffffu, least, apart);
      const int its = __shfl_xor_sync(0xffffffffu, column, apart);
      if (other < least || (other == least && its < column)) least = other, column = its;
    }
    if (lane() == 0) columns[row] = column;
  }
}

// The sums of the rows of each cluster, each of so many parts for itself: (n_clusters, n_parts, width). `order` has the
// rows cluster by cluster; `edges` tells where these begin, and the last one where it ends. A block takes a part.
extern "C" __global__ void cluster_sums(const Number* rows, int width, const long long* order, const long long* edges,
                                        int n_parts, double* sums) {
  const long long part = blockIdx.x % n_parts, *edge = edges + blockIdx.x / n_parts, count = edge[1] - edge[0];
  const long long begin = edge[0] + count * part / n_parts, end = edge[0] + count * (part + 1) / n_parts;
  for (int k = threadIdx.x; k < width; k += blockDim.x) {
    double sum = 0;
#pragma unroll 4
    for (long long i = begin; i < end; ++i) sum += rows[order[i] * width + k];
    sums[size_t(blockIdx.x) * width + k] = sum;
  }
}
