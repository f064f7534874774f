// SPDX-License-Identifier: Apache-2.0
#include "server/transforms/line_graph.h"

#include <algorithm>

#include "hwy/cache_control.h"
#include "server/transforms/gaf_kernels.h"
#include "shared/tensor/dtype.h"

namespace stoker::transforms {
namespace {

using v1::GraphRecipe;

// Triplets that are made at a time, few enough to stay in the nearest cache until they are written.
constexpr int64_t kGroup = 1024;

}  // namespace

LineGraph::LineGraph(const CrystalKernels* kernels)
    : kernels_(kernels),
      first_(SupportedGafKernels().front(), (kGroup + kRowPadding) * sizeof(int64_t)),
      second_(SupportedGafKernels().front(), (kGroup + kRowPadding) * sizeof(int64_t)) {
  cosines_.Reserve(kGroup + kRowPadding);
}

void LineGraph::AddRun(int64_t edge, int64_t begin, int64_t end) {
  for (; begin < end; begin += kGroup) {
    const int64_t count = std::min(end - begin, kGroup);
    runs_.Reserve(run_count_ + 1, run_count_);
    runs_[run_count_++] = {static_cast<int32_t>(edge), static_cast<int32_t>(begin), static_cast<int32_t>(count)};
    triplets_ += count;
  }
}

void LineGraph::Assign(GraphRecipe::LineGraph kind, absl::Span<const int64_t> bucket,
                       absl::Span<const int32_t> destination, absl::Span<const int32_t> degree,
                       absl::Span<const float> r) {
  run_count_ = 0;
  triplets_ = 0;
  r_ = r;
  sign_ = kind == GraphRecipe::M3GNET ? 1.0f : -1.0f;
  for (size_t atom = 0; atom < degree.size(); ++atom) {
    for (int64_t edge = bucket[atom]; edge < bucket[atom] + degree[atom]; ++edge) {
      const size_t middle = kind == GraphRecipe::M3GNET ? atom : static_cast<size_t>(destination[edge]);
      const int64_t begin = bucket[middle], end = begin + degree[middle];
      if (kind != GraphRecipe::TORCH && edge >= begin && edge < end) {  // no edge is its own partner
        AddRun(edge, begin, edge);
        AddRun(edge, edge + 1, end);
      } else {
        AddRun(edge, begin, end);
      }
    }
  }
}

// Calls take(runs, their number, triplets of theirs) for groups of runs, each of at most kGroup triplets.
template <typename Take>
void LineGraph::ForEachGroup(Take take) const {
  for (size_t begin = 0; begin < run_count_;) {
    size_t end = begin;
    int64_t count = 0;
    do {
      count += runs_[end++].count;
    } while (end < run_count_ && count + runs_[end].count <= kGroup);
    take(&runs_[begin], end - begin, static_cast<size_t>(count));
    begin = end;
  }
}

template <typename Index>
void LineGraph::WriteIndexAs(TripletIndexKernel kernel, int64_t offset, Index* first, Index* second) {
  first_.Begin(first);
  second_.Begin(second);
  ForEachGroup([&](const PartnerRun* runs, size_t run_count, size_t count) {
    kernel(runs, run_count, offset, first_.Next(), second_.Next());
    first_.Commit(count * sizeof(Index));
    second_.Commit(count * sizeof(Index));
  });
  first_.End();
  second_.End();
}

void LineGraph::WriteIndex(v1::DType dtype, int64_t offset, void* first, void* second) {
  if (dtype == v1::DTYPE_I32) {
    WriteIndexAs(kernels_->triplet_index_i32, offset, static_cast<int32_t*>(first), static_cast<int32_t*>(second));
  } else {
    WriteIndexAs(kernels_->triplet_index_i64, offset, static_cast<int64_t*>(first), static_cast<int64_t*>(second));
  }
}

void LineGraph::WriteCosines(v1::DType dtype, void* out) {
  const size_t edges = r_.size() / 3;
  for (Buffer<float>* axis : {&x_, &y_, &z_}) axis->Reserve(edges + kRowPadding);
  kernels_->directions(r_.data(), edges, x_.data(), y_.data(), z_.data());
  const RoundKernel round = kernels_->RoundTo(dtype);
  const size_t size = tensor::DTypeSize(dtype);
  first_.Begin(out);
  ForEachGroup([&](const PartnerRun* runs, size_t run_count, size_t count) {
    kernels_->triplet_cosine({x_.data(), y_.data(), z_.data()}, runs, run_count, sign_, cosines_.data());
    round(cosines_.data(), count, first_.Next());
    first_.Commit(count * size);
  });
  first_.End();
}

void LineGraph::Flush() { hwy::FlushStream(); }

}  // namespace stoker::transforms
