// SPDX-License-Identifier: Apache-2.0
#include "server/transforms/line_graph.h"

#include <algorithm>
#include <cmath>

#include "server/transforms/float_rows.h"
#include "shared/tensor/dtype.h"

namespace stoker::transforms {

using v1::GraphRecipe;

void LineGraph::AddRun(int64_t edge, int64_t begin, int64_t end, bool without_itself) {
  const auto add = [&](int64_t from, int64_t to) {
    if (from >= to) return;
    runs_.push_back({static_cast<int32_t>(edge), static_cast<int32_t>(from), static_cast<int32_t>(to - from)});
    triplets_ += to - from;
  };
  if (without_itself && edge >= begin && edge < end) {
    add(begin, edge);
    add(edge + 1, end);
  } else {
    add(begin, end);
  }
}

void LineGraph::Assign(GraphRecipe::LineGraph kind, absl::Span<const int64_t> bucket,
                       absl::Span<const int32_t> destination, absl::Span<const int32_t> degree,
                       absl::Span<const float> r) {
  runs_.clear();
  triplets_ = 0;
  r_ = r;
  sign_ = kind == GraphRecipe::M3GNET ? 1.0f : -1.0f;
  for (size_t atom = 0; atom < degree.size(); ++atom) {
    for (int64_t edge = bucket[atom]; edge < bucket[atom] + degree[atom]; ++edge) {
      const size_t middle = kind == GraphRecipe::M3GNET ? atom : static_cast<size_t>(destination[edge]);
      AddRun(edge, bucket[middle], bucket[middle] + degree[middle], kind != GraphRecipe::TORCH);
    }
  }
}

void LineGraph::WriteIndex(v1::DType dtype, int64_t offset, void* first, void* second) const {
  const auto write = [&](auto* a, auto* b) {
    using Index = std::remove_pointer_t<decltype(a)>;
    for (const Run& run : runs_) {
      const auto edge = static_cast<Index>(run.edge + offset);
      const auto begin = static_cast<Index>(run.begin + offset);
      for (int32_t i = 0; i < run.count; ++i) {
        a[i] = edge;
        b[i] = begin + i;
      }
      a += run.count;
      b += run.count;
    }
  };
  if (dtype == v1::DTYPE_I32) {
    write(static_cast<int32_t*>(first), static_cast<int32_t*>(second));
  } else {
    write(static_cast<int64_t*>(first), static_cast<int64_t*>(second));
  }
}

void LineGraph::WriteCosines(v1::DType dtype, void* out) {
  const size_t edges = r_.size() / 3;
  x_.resize(edges), y_.resize(edges), z_.resize(edges);
  for (size_t e = 0; e < edges; ++e) {
    const float* const r = &r_[3 * e];
    const float length = std::sqrt((r[0] * r[0] + r[1] * r[1]) + r[2] * r[2]);
    const float scale = length > 0 ? 1.0f / length : 0.0f;
    x_[e] = r[0] * scale, y_[e] = r[1] * scale, z_[e] = r[2] * scale;
  }
  auto* to = static_cast<uint8_t*>(out);
  for (const Run& run : runs_) {
    const auto count = static_cast<size_t>(run.count);
    row_.resize(std::max(row_.size(), count));
    const float x = sign_ * x_[run.edge], y = sign_ * y_[run.edge], z = sign_ * z_[run.edge];
    for (size_t i = 0; i < count; ++i) {
      const size_t b = static_cast<size_t>(run.begin) + i;
      row_[i] = std::min(std::max((x * x_[b] + y * y_[b]) + z * z_[b], -1.0f), 1.0f);
    }
    RoundFloats({row_.data(), count}, dtype, to);
    to += count * tensor::DTypeSize(dtype);
  }
}

}  // namespace stoker::transforms
