// SPDX-License-Identifier: Apache-2.0
// In which iteration over a data set a process takes part: DataLoader's workers have nothing in common but memory, and
// count each for itself what not all of them begin. Without a lock, which a killed worker would leave held.
#include <nanobind/ndarray.h>

#include <atomic>
#include <cstdint>

#include "client/python/src/bindings.h"

namespace stoker::python {
namespace {

// The last iterations, in turn: key << kNumberBits | number. Zero: none yet.
using Table = nb::ndarray<int64_t, nb::shape<-1>, nb::c_contig, nb::device::cpu>;
constexpr int kNumberBits = 24;
constexpr int64_t kNumberMask = (int64_t{1} << kNumberBits) - 1;

std::atomic_ref<int64_t> Entry(const Table& table, int64_t i) { return std::atomic_ref<int64_t>(table.data()[i]); }

// The number of the newest iteration; 0: there was none.
int64_t LastIteration(const Table& table) {
  int64_t newest = 0;
  for (int64_t i = 0; i < static_cast<int64_t>(table.size()); ++i) {
    newest = std::max(newest, Entry(table, i).load() & kNumberMask);
  }
  return newest;
}

// The number, from 1 on, of the newest iteration of `key` [0, 2^39) after number `after`; one more than all there are,
// if there is none.
int64_t JoinIteration(const Table& table, int64_t key, int64_t after) {
  const auto size = static_cast<int64_t>(table.size());
  while (true) {
    const int64_t number = LastIteration(table) + 1;
    int64_t joined = 0;
    for (int64_t i = 0; i < size; ++i) {
      const int64_t seen = Entry(table, i).load();
      if (seen >> kNumberBits == key && (seen & kNumberMask) > after) joined = std::max(joined, seen & kNumberMask);
    }
    if (joined > 0) return joined;
    std::atomic_ref<int64_t> place = Entry(table, number % size);
    int64_t before = place.load();
    if ((before & kNumberMask) >= number) continue;  // another process began one
    if (place.compare_exchange_strong(before, key << kNumberBits | number)) return number;
  }
}

}  // namespace

void BindIterations(nb::module_& module) {
  module.def("last_iteration", LastIteration, nb::arg("table"));
  module.def("join_iteration", JoinIteration, nb::arg("table"), nb::arg("key"), nb::arg("after"));
}

}  // namespace stoker::python
