// SPDX-License-Identifier: Apache-2.0
#include "shared/tensor/layout.h"

#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "shared/base/size.h"
#include "shared/base/status_macros.h"
#include "shared/tensor/dtype.h"

namespace stoker::tensor {
namespace {

constexpr uint64_t kMaxBytes = uint64_t{1} << 62;

// Bytes of a tensor, or InvalidArgument. Never overflows.
template <typename Shape>
absl::StatusOr<uint64_t> CheckedBytes(absl::string_view name, v1::DType dtype, const Shape& shape) {
  const uint64_t size = DTypeSize(dtype);
  if (size == 0) return absl::InvalidArgumentError(absl::StrCat("tensor ", name, ": unknown dtype ", int{dtype}));
  uint64_t bytes = size;
  bool empty = false;
  for (const int64_t dimension : shape) {
    if (dimension < 0) return absl::InvalidArgumentError(absl::StrCat("tensor ", name, ": dimension ", dimension));
    if (dimension == 0) {
      empty = true;
    } else if (bytes > kMaxBytes / static_cast<uint64_t>(dimension)) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", name, ": more than 2^62 bytes"));
    } else {
      bytes *= static_cast<uint64_t>(dimension);
    }
  }
  return empty ? 0 : bytes;
}

}  // namespace

int64_t TensorSpec::elements() const {
  int64_t count = 1;
  for (const int64_t dimension : shape) count *= dimension;
  return count;
}

uint64_t TensorSpec::size_bytes() const { return static_cast<uint64_t>(elements()) * DTypeSize(dtype); }

absl::StatusOr<Layout> Layout::Create(std::vector<TensorSpec> tensors) {
  Layout layout;
  uint64_t end = kExtentHeaderBytes;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const TensorSpec& tensor = tensors[i];
    if (tensor.name.empty()) return absl::InvalidArgumentError("a tensor has no name");
    for (size_t j = 0; j < i; ++j) {
      if (tensors[j].name == tensor.name) {
        return absl::InvalidArgumentError(absl::StrCat("tensor ", tensor.name, " is there twice"));
      }
    }
    STOKER_ASSIGN_OR_RETURN(const uint64_t bytes, CheckedBytes(tensor.name, tensor.dtype, tensor.shape));
    layout.offsets_.push_back(end);
    end = AlignUp(end + bytes, kTensorAlignment);
    if (end > kMaxBytes) return absl::InvalidArgumentError("a batch of more than 2^62 bytes");
  }
  layout.extent_bytes_ = AlignUp(end, kExtentAlignment);
  layout.tensors_ = std::move(tensors);
  return layout;
}

void Layout::Describe(v1::BatchDescriptor* batch) const {
  batch->set_extent_size_bytes(extent_bytes_);
  for (size_t i = 0; i < tensors_.size(); ++i) {
    v1::TensorDescriptor* tensor = batch->add_tensors();
    tensor->set_name(tensors_[i].name);
    tensor->set_dtype(tensors_[i].dtype);
    for (const int64_t dimension : tensors_[i].shape) tensor->add_shape(dimension);
    tensor->set_offset_bytes(offsets_[i]);
  }
}

absl::Status CheckDescriptor(const v1::BatchDescriptor& batch) {
  const uint64_t segment = batch.segment().size_bytes();
  const uint64_t extent = batch.extent_size_bytes();
  if (extent < kExtentHeaderBytes || extent > segment || batch.extent_offset_bytes() > segment - extent ||
      batch.extent_offset_bytes() % kExtentAlignment != 0) {
    return absl::DataLossError(absl::StrCat("descriptor: extent [", batch.extent_offset_bytes(), ", +", extent,
                                            ") is not inside a segment of ", segment, " bytes"));
  }
  for (const v1::TensorDescriptor& tensor : batch.tensors()) {
    const absl::StatusOr<uint64_t> bytes = CheckedBytes(tensor.name(), tensor.dtype(), tensor.shape());
    if (!bytes.ok()) return absl::DataLossError(absl::StrCat("descriptor: ", bytes.status().message()));
    if (tensor.offset_bytes() % kTensorAlignment != 0 || tensor.offset_bytes() < kExtentHeaderBytes ||
        tensor.offset_bytes() > extent || *bytes > extent - tensor.offset_bytes()) {
      return absl::DataLossError(absl::StrCat("descriptor: tensor ", tensor.name(), " [", tensor.offset_bytes(), ", +",
                                              *bytes, ") is not inside an extent of ", extent, " bytes"));
    }
  }
  return absl::OkStatus();
}

}  // namespace stoker::tensor
