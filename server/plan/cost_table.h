// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"

namespace stoker::plan {

// One number a sample, in a column of a store; not owned.
class CostColumn {
 public:
  CostColumn() = default;  // 0 for every sample
  CostColumn(absl::Span<const int32_t> values, size_t stride = 1) : values_(values), stride_(stride) {}
  bool empty() const { return values_.empty(); }
  // Has the processor fetch a value that is read soon.
  void Prefetch(uint64_t sample) const {
    if (!values_.empty()) __builtin_prefetch(&values_[sample * stride_]);
  }
  uint64_t operator[](uint64_t sample) const {
    return values_.empty() ? 0 : static_cast<uint64_t>(values_[sample * stride_]);
  }

 private:
  absl::Span<const int32_t> values_;
  size_t stride_ = 1;
};

// What samples cost in a batch. The columns are mapped from the store and stay there: a plan over many samples copies
// none of them.
struct CostTable {
  uint64_t samples = 0;
  CostColumn nodes = {}, edges = {}, triplets = {}, text_bytes = {};  // none negative

  // The extent of a batch takes at most fixed_bytes, and for each sample sample_bytes + node_bytes * nodes +
  // edge_bytes * edges + triplet_bytes * triplets + text_bytes.
  uint64_t fixed_bytes = 0;
  uint64_t sample_bytes = 0;
  uint64_t node_bytes = 0;
  uint64_t edge_bytes = 0;
  uint64_t triplet_bytes = 0;

  // Batches of equally many samples are of one size.
  bool uniform() const { return nodes.empty() && edges.empty() && triplets.empty() && text_bytes.empty(); }
};

}  // namespace stoker::plan
