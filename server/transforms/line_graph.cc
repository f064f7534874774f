// SPDX-License-Identifier: Apache-2.0
#include "server/transforms/line_graph.h"

#include <algorithm>

#include "hwy/cache_control.h"

namespace stoker::transforms {

using v1::GraphRecipe;

LineGraph::LineGraph(const CrystalKernels* kernels) : kernels_(kernels) {}

void LineGraph::Assign(GraphRecipe::LineGraph kind, absl::Span<const int64_t> bucket,
                       absl::Span<const int32_t> destination, absl::Span<const int32_t> degree,
                       absl::Span<const float> r) {
  r_ = r;
  sign_ = kind == GraphRecipe::M3GNET ? 1.0f : -1.0f;
  partners_ = {bucket.data(), degree.data(), kind == GraphRecipe::M3GNET ? nullptr : destination.data(), degree.size(),
               kind != GraphRecipe::TORCH};
  triplets_ = 0;
  for (size_t atom = 0; atom < degree.size(); ++atom) triplets_ += TripletsOf(atom);
}

int64_t LineGraph::TripletsOf(size_t atom) const {
  const int64_t degree = partners_.degree[atom];
  if (partners_.destination == nullptr) return degree * (degree - 1);
  const int32_t* const first = partners_.destination + partners_.bucket[atom];
  int64_t triplets = 0;
  for (int64_t e = 0; e < degree; ++e) triplets += partners_.degree[first[e]];
  return triplets - (partners_.without_itself ? std::count(first, first + degree, static_cast<int32_t>(atom)) : 0);
}

void LineGraph::Write(v1::DType index, int64_t offset, v1::DType real, void* first, void* second, void* cosines) {
  if (cosines != nullptr) {
    const size_t edges = r_.size() / 3;
    for (Buffer<float>* axis : {&x_, &y_, &z_}) axis->Reserve(edges + kRowPadding);
    kernels_->directions(r_.data(), edges, x_.data(), y_.data(), z_.data());
  }
  kernels_->TripletsTo(index, real)(partners_, {x_.data(), y_.data(), z_.data()}, sign_, offset,
                                    {first, second, cosines, static_cast<size_t>(triplets_)});
}

void LineGraph::Flush() { hwy::FlushStream(); }

}  // namespace stoker::transforms
