// Sums, over the descriptors of a cell, of their differences from their words.
//
// A word may be the mean of just the descriptors that are summed. What is left then is no more than how the word was
// rounded, and the features scale it up; so everything here is in double, and descriptors are summed before they are
// projected onto principal axes, once per word instead of once each.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "_axes.h"

namespace nb = nanobind;

namespace {

// Which descriptors belong to each word of each cell, in their order.
class Members {
 public:
  Members(const int32_t* labels, const int64_t* cells, long n, long n_words, long n_cells)
      : ends_(n_cells * n_words), rows_(n) {
    for (long r = 0; r < n; ++r) ++ends_[cells[r] * n_words + labels[r]];
    for (size_t k = 1; k < ends_.size(); ++k) ends_[k] += ends_[k - 1];
    for (long r = n - 1; r >= 0; --r) rows_[--ends_[cells[r] * n_words + labels[r]]] = r;
  }
  const long* begin(long k) const { return rows_.data() + ends_[k]; }
  const long* end(long k) const { return k + 1 < long(ends_.size()) ? begin(k + 1) : rows_.data() + rows_.size(); }

 private:
  std::vector<long> ends_, rows_;
};

// Without axes the descriptors stay as they are.
void add_residuals(const float* descriptors, long depth, const Members& members, const Axes* axes, const double* words,
                   long n_words, long n_dims, long n_cells, double* sums) {
  std::vector<double> rows(Axes::kTogether * depth), unused(n_dims);
  double* to[Axes::kTogether];
  long waiting = 0;
  const auto project = [&] {
    std::fill(to + waiting, to + Axes::kTogether, unused.data());
    if (waiting > 0) axes->add_products(rows.data(), to);
    waiting = 0;
  };
  for (long k = 0; k < n_cells * n_words; ++k, sums += n_dims) {
    const long *from = members.begin(k), *end = members.end(k);
    const double count = double(end - from), *word = words + k % n_words * n_dims;
    for (long i = 0; i < n_dims; ++i) sums[i] = from == end ? 0 : -count * word[i];
    if (from == end) continue;
    double* sum = axes ? &rows[waiting * depth] : sums;
    if (axes) std::fill_n(sum, depth, 0.0), to[waiting++] = sums;
    for (; end - from >= 2; from += 2) {  // two at a time: the sums are loaded and stored half as often
      const float *row = descriptors + from[0] * depth, *next = descriptors + from[1] * depth;
      for (const long* later = from + 2; later != end && later != from + 4; ++later)  // a word's rows lie anywhere
        for (long i = 0; i < depth; i += 16) __builtin_prefetch(descriptors + *later * depth + i);
      for (long i = 0; i < depth; ++i) sum[i] += double(row[i]) + next[i];
    }
    if (from != end)
      for (long i = 0; i < depth; ++i) sum[i] += descriptors[*from * depth + i];
    if (waiting == Axes::kTogether) project();
  }
  project();
}

using Matrix = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Doubles = nb::ndarray<const double, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Labels = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Cells = nb::ndarray<const int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Sums = nb::ndarray<double, nb::ndim<3>, nb::c_contig, nb::device::cpu>;

template <class T>
bool all_below(const T* values, long n, T limit) {
  return std::all_of(values, values + n, [&](T value) { return value >= 0 && value < limit; });
}

void residual_sums(Matrix descriptors, std::optional<Matrix> axes, Doubles words, Labels labels, Cells cells,
                   Sums sums) {
  const long n = long(descriptors.shape(0)), depth = long(descriptors.shape(1));
  const long n_dims = long(words.shape(1)), n_words = long(words.shape(0)), n_cells = long(sums.shape(0));
  const bool fit = axes ? long(axes->shape(1)) == depth && long(axes->shape(0)) == n_dims : depth == n_dims;
  if (!fit || long(labels.shape(0)) != n || long(cells.shape(0)) != n || long(sums.shape(1)) != n_words ||
      long(sums.shape(2)) != n_dims || !all_below(labels.data(), n, int32_t(n_words)) ||
      !all_below(cells.data(), n, int64_t(n_cells)))
    throw std::invalid_argument("residual_sums: descriptors, axes, words, labels, cells and sums do not fit together");
  nb::gil_scoped_release release;
  const Members members(labels.data(), cells.data(), n, n_words, n_cells);
  std::optional<Axes> columns;
  if (axes) columns.emplace(axes->data(), n_dims, depth);
  add_residuals(descriptors.data(), depth, members, axes ? &*columns : nullptr, words.data(), n_words, n_dims, n_cells,
                sums.data());
}

}  // namespace

void bind_vlad(nb::module_& m) {
  m.def("residual_sums", &residual_sums, nb::arg("descriptors").noconvert(), nb::arg("axes").noconvert().none(),
        nb::arg("words").noconvert(), nb::arg("labels").noconvert(), nb::arg("cells").noconvert(), nb::arg("sums").noconvert());
}
