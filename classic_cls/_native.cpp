// Binds the kernels. A new descriptor adds its bind_<stem> here, in alphabetical order.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

namespace nb = nanobind;

void bind_bag_of_words(nb::module_&);
void bind_color_histogram(nb::module_&);
void bind_dense_sift(nb::module_&);
void bind_fisher_vector(nb::module_&);
void bind_hog(nb::module_&);
void bind_local(nb::module_&);
void bind_patch_kmeans(nb::module_&);
void bind_pca(nb::module_&);
void bind_vlad(nb::module_&);

// The bodies besides the baseline that this CPU can run, slowest first.
static std::vector<std::string> supported_bodies() {
  std::vector<std::string> names;
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                  __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
  if (v3) names.push_back("v3");
  if (v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl"))
    names.push_back("v4");
#endif
  return names;
}

NB_MODULE(CLASSIC_CLS_MODULE, m) {
  m.def("supported_bodies", &supported_bodies);
  bind_bag_of_words(m);
  bind_color_histogram(m);
  bind_dense_sift(m);
  bind_fisher_vector(m);
  bind_hog(m);
  bind_local(m);
  bind_patch_kmeans(m);
  bind_pca(m);
  bind_vlad(m);
}
