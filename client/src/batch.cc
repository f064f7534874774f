// SPDX-License-Identifier: Apache-2.0
#include "stoker/batch.h"

#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/src/batch_data.h"
#include "shared/base/status_macros.h"
#include "shared/segment/header.h"
#include "shared/tensor/dtype.h"

namespace stoker {

float Half::ToFloat() const {
  const int exponent = (bits >> 10) & 0x1f;
  const int fraction = bits & 0x3ff;
  float magnitude;
  if (exponent == 0x1f) {
    magnitude = fraction == 0 ? std::numeric_limits<float>::infinity() : std::numeric_limits<float>::quiet_NaN();
  } else if (exponent == 0) {
    magnitude = std::ldexp(static_cast<float>(fraction), -24);
  } else {
    magnitude = std::ldexp(static_cast<float>(fraction + 0x400), exponent - 25);
  }
  return (bits & 0x8000) != 0 ? -magnitude : magnitude;
}

float BFloat16::ToFloat() const {
  const uint32_t wide = uint32_t{bits} << 16;
  float value;
  std::memcpy(&value, &wide, sizeof(value));
  return value;
}

uint64_t Batch::epoch() const { return data_->descriptor().epoch(); }
uint64_t Batch::step() const { return data_->descriptor().step(); }
uint64_t Batch::samples() const { return data_->descriptor().samples(); }
uint64_t Batch::size_bytes() const { return data_->descriptor().extent_size_bytes(); }
bool Batch::inline_memory() const { return data_->inline_memory(); }
const std::vector<RawTensor>& Batch::tensors() const { return data_->tensors(); }
absl::Status Batch::Check() const { return data_->Check(); }

absl::StatusOr<RawTensor> Batch::GetRaw(absl::string_view name) const {
  STOKER_ASSIGN_OR_RETURN(const RawTensor* tensor, Find(name, v1::DTYPE_UNSPECIFIED));
  return *tensor;
}

absl::StatusOr<const RawTensor*> Batch::Find(absl::string_view name, v1::DType want) const {
  for (const RawTensor& tensor : tensors()) {
    if (tensor.name != name) continue;
    if (want != v1::DTYPE_UNSPECIFIED && want != tensor.dtype) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", name, " is ", tensor::DTypeName(tensor.dtype),
                                                     ", asked for as ", tensor::DTypeName(want)));
    }
    return &tensor;
  }
  const std::string names = absl::StrJoin(
      tensors(), ", ", [](std::string* out, const RawTensor& tensor) { absl::StrAppend(out, tensor.name); });
  return absl::NotFoundError(absl::StrCat("batch has no tensor \"", name, "\", it has ", names));
}

namespace client {

BatchData::BatchData(v1::BatchDescriptor descriptor, const uint8_t* extent, std::shared_ptr<const void> memory,
                     bool inline_memory)
    : descriptor_(std::move(descriptor)), extent_(extent), memory_(std::move(memory)), inline_memory_(inline_memory) {
  size_t dimensions = 0;
  for (const v1::TensorDescriptor& tensor : descriptor_.tensors()) dimensions += tensor.shape_size();
  strides_.resize(dimensions);
  tensors_.reserve(descriptor_.tensors_size());
  int64_t* strides = strides_.data();
  for (const v1::TensorDescriptor& tensor : descriptor_.tensors()) {
    const size_t rank = tensor.shape_size();
    int64_t elements = 1;
    for (size_t i = rank; i-- > 0;) {
      strides[i] = elements;
      elements *= tensor.shape(i);
    }
    tensors_.push_back({tensor.name(),
                        tensor.dtype(),
                        {tensor.shape().data(), rank},
                        {strides, rank},
                        {extent_ + tensor.offset_bytes(), elements * tensor::DTypeSize(tensor.dtype())}});
    strides += rank;
  }
}

BatchData::~BatchData() {
  if (owner_ != nullptr) owner_->Release(lease_);
}

void BatchData::AttachLease(std::shared_ptr<LeaseOwner> owner, uint64_t lease) {
  owner_ = std::move(owner);
  lease_ = lease;
}

BatchData::State BatchData::state() const {
  const uint64_t sequence = segment::ReadSequence(extent_);
  if (sequence == descriptor_.sequence()) return State::kSealed;
  return sequence == 0 ? State::kMaking : State::kGone;
}

absl::Status BatchData::Check() const {
  const auto* header = reinterpret_cast<const segment::ExtentHeader*>(extent_);
  if (header->magic != segment::kExtentMagic) return absl::DataLossError("batch: its memory is no extent");
  // What the caller read before is read before the sequence is.
  std::atomic_thread_fence(std::memory_order_acquire);
  const uint64_t sequence = segment::ReadSequence(extent_);
  if (sequence == descriptor_.sequence()) return absl::OkStatus();
  return absl::AbortedError(absl::StrCat("batch ", descriptor_.epoch(), ":", descriptor_.step(),
                                         ": its lease is gone and its memory is used again (sequence ", sequence,
                                         ", want ", descriptor_.sequence(), "): read the batch again"));
}

}  // namespace client
}  // namespace stoker
