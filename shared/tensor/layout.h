// SPDX-License-Identifier: Apache-2.0
// Where each tensor of a batch lies in its extent. A pure function of the tensors' names, types and shapes, so that the
// daemon, which allocates, and the worker, which writes, agree without a word.
//
//   extent: | header, 256 bytes | tensor 0 | pad | tensor 1 | pad | …   each at a multiple of 256, all rounded up to
//   4096
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "stoker/v1/batch.pb.h"

namespace stoker::tensor {

inline constexpr uint64_t kTensorAlignment = 256;
inline constexpr uint64_t kExtentAlignment = 4096;
inline constexpr uint64_t kExtentHeaderBytes = 256;

struct TensorSpec {
  std::string name;
  v1::DType dtype;
  std::vector<int64_t> shape;  // row-major, each >= 0

  // Elements and bytes. REQUIRES: validated by Layout::Create, which makes overflow impossible.
  int64_t elements() const;
  uint64_t size_bytes() const;
};

class Layout {
 public:
  // InvalidArgument when a dimension is negative, a dtype unknown, a name empty or twice, or bytes do not fit into 62
  // bits.
  static absl::StatusOr<Layout> Create(std::vector<TensorSpec> tensors);

  const std::vector<TensorSpec>& tensors() const { return tensors_; }
  uint64_t offset_bytes(size_t i) const { return offsets_[i]; }  // of tensors()[i], from the start of the extent
  uint64_t extent_bytes() const { return extent_bytes_; }        // a multiple of kExtentAlignment

  // Adds the tensors to `batch`.
  void Describe(v1::BatchDescriptor* batch) const;

 private:
  std::vector<TensorSpec> tensors_;
  std::vector<uint64_t> offsets_;
  uint64_t extent_bytes_ = 0;
};

// What a client checks before it touches a byte: each tensor of known dtype, aligned, and inside the extent, and the
// extent inside the segment. DataLoss otherwise.
absl::Status CheckDescriptor(const v1::BatchDescriptor& batch);

}  // namespace stoker::tensor
