// SPDX-License-Identifier: Apache-2.0
#include "server/transforms/line_graph.h"

#include "hwy/cache_control.h"

namespace stoker::transforms {

using v1::GraphRecipe;

LineGraph::LineGraph(const CrystalKernels* kernels) : kernels_(kernels) {}

void LineGraph::Assign(GraphRecipe::LineGraph kind, absl::Span<const int64_t> bucket,
                       absl::Span<const int32_t> destination, absl::Span<const int32_t> degree,
                       absl::Span<const float> r) {
  r_ = r;
  sign_ = kind == GraphRecipe::M3GNET ? 1.0f : -1.0f;
  const int64_t* const buckets = bucket.data();
  const int32_t* const degrees = degree.data();
  PartnerRun* const runs = runs_.Reserve(2 * destination.size());
  size_t run = 0;
  int64_t triplets = 0;
  for (size_t atom = 0; atom < degree.size(); ++atom) {
    const auto first = static_cast<int32_t>(buckets[atom]), last = first + degrees[atom];
    for (int32_t edge = first; edge < last; ++edge) {
      const int32_t middle = kind == GraphRecipe::M3GNET ? static_cast<int32_t>(atom) : destination.data()[edge];
      const auto begin = static_cast<int32_t>(buckets[middle]);
      const int32_t count = degrees[middle];
      triplets += count;
      if (kind != GraphRecipe::TORCH && edge >= begin && edge < begin + count) {  // no edge is its own partner
        --triplets;
        runs[run++] = {edge, begin, edge - begin};
        runs[run++] = {edge, edge + 1, begin + count - edge - 1};
      } else {
        runs[run++] = {edge, begin, count};
      }
    }
  }
  run_count_ = run;
  triplets_ = triplets;
}

void LineGraph::WriteIndex(v1::DType dtype, int64_t offset, void* first, void* second) {
  const TripletIndexKernel kernel = dtype == v1::DTYPE_I32 ? kernels_->triplet_index_i32 : kernels_->triplet_index_i64;
  kernel(runs_.data(), run_count_, offset, first, second);
}

void LineGraph::WriteCosines(v1::DType dtype, void* out) {
  const size_t edges = r_.size() / 3, triplets = static_cast<size_t>(triplets_);
  for (Buffer<float>* axis : {&x_, &y_, &z_}) axis->Reserve(edges + kRowPadding);
  kernels_->directions(r_.data(), edges, x_.data(), y_.data(), z_.data());
  const bool as_they_are = dtype == v1::DTYPE_F32;
  float* const cosines = as_they_are ? static_cast<float*>(out) : cosines_.Reserve(triplets);
  kernels_->triplet_cosine({x_.data(), y_.data(), z_.data()}, runs_.data(), run_count_, triplets, sign_, cosines);
  if (!as_they_are) kernels_->RoundTo(dtype)(cosines, triplets, out);
}

void LineGraph::Flush() { hwy::FlushStream(); }

}  // namespace stoker::transforms
