// SPDX-License-Identifier: Apache-2.0
// One batch in a client's hands: named tensors over memory that is read in place, without a copy.
//
//   absl::StatusOr<stoker::TensorView<float>> gasf = batch.Get<float>("gasf");   // [B, C, S, S]
//   if (gasf.ok()) Train(gasf->data().data(), gasf->shape());
//
// Ownership: a Batch and each view of it share one lease. The bytes stay what they are until the last of them is
// destroyed; then the lease goes back to the daemon, which may use the memory again. Hold a batch only as long as it is
// read: a session has a limit of leases, and copy what must live longer.
// Threads: Batch and TensorView are values. Different objects may be used and destroyed on any threads, one object on
// one thread at a time; all accessors that are const may run at the same time. Nothing here blocks.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "stoker/v1/recipe.pb.h"

namespace stoker {

namespace client {
class BatchData;
}

// IEEE 754 binary16, and the upper half of binary32: the bits, and the number they mean.
struct Half {
  uint16_t bits;
  float ToFloat() const;
};
struct BFloat16 {
  uint16_t bits;
  float ToFloat() const;
};

// The element type of a tensor that is read as T.
template <typename T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr v1::DType value = v1::DTYPE_F32;
};
template <>
struct DTypeOf<double> {
  static constexpr v1::DType value = v1::DTYPE_F64;
};
template <>
struct DTypeOf<Half> {
  static constexpr v1::DType value = v1::DTYPE_F16;
};
template <>
struct DTypeOf<BFloat16> {
  static constexpr v1::DType value = v1::DTYPE_BF16;
};
template <>
struct DTypeOf<uint8_t> {
  static constexpr v1::DType value = v1::DTYPE_U8;
};
template <>
struct DTypeOf<uint16_t> {
  static constexpr v1::DType value = v1::DTYPE_U16;
};
template <>
struct DTypeOf<int64_t> {
  static constexpr v1::DType value = v1::DTYPE_I64;
};
template <>
struct DTypeOf<int32_t> {
  static constexpr v1::DType value = v1::DTYPE_I32;
};

// A tensor of any type. Its memory is valid as long as the Batch it was taken from, or any view or copy of that.
struct RawTensor {
  absl::string_view name;
  v1::DType dtype;
  absl::Span<const int64_t> shape;    // row-major; empty: one element
  absl::Span<const int64_t> strides;  // in elements, as many as `shape`
  absl::Span<const uint8_t> bytes;    // contiguous, begins at a multiple of 256 bytes
};

// Elements of a tensor, contiguous and row-major. Holds the lease of its batch.
template <typename T>
class TensorView {
 public:
  TensorView() = default;
  absl::Span<const T> data() const { return data_; }
  absl::Span<const int64_t> shape() const { return shape_; }
  absl::Span<const int64_t> strides() const { return strides_; }  // in elements

 private:
  friend class Batch;
  std::shared_ptr<const client::BatchData> lease_;
  absl::Span<const T> data_;
  absl::Span<const int64_t> shape_;
  absl::Span<const int64_t> strides_;
};

class Batch {
 public:
  // Holds nothing; of the members only assignment and destruction may be used.
  Batch() = default;
  explicit Batch(std::shared_ptr<const client::BatchData> data) : data_(std::move(data)) {}  // for the library itself

  uint64_t epoch() const;
  uint64_t step() const;
  uint64_t samples() const;  // may be 0 for the last step of a rank

  // All tensors, in the order of the schema; and one by name, NotFound naming those that there are.
  const std::vector<RawTensor>& tensors() const;
  absl::StatusOr<RawTensor> GetRaw(absl::string_view name) const;

  // InvalidArgument when the tensor's type is not T.
  template <typename T>
  absl::StatusOr<TensorView<T>> Get(absl::string_view name) const {
    const absl::StatusOr<const RawTensor*> tensor = Find(name, DTypeOf<T>::value);
    if (!tensor.ok()) return tensor.status();
    TensorView<T> view;
    view.lease_ = data_;
    view.data_ = {reinterpret_cast<const T*>((*tensor)->bytes.data()), (*tensor)->bytes.size() / sizeof(T)};
    view.shape_ = (*tensor)->shape;
    view.strides_ = (*tensor)->strides;
    return view;
  }

  // Whether the memory still holds this batch: Aborted when it does not. It always does while the loader's session
  // lives. After the stream to a daemon was lost that itself lives on, the lease is gone and the memory may have been
  // written anew: what was read before a Check that returns OK was right.
  absl::Status Check() const;

  uint64_t size_bytes() const;  // of the whole extent, padding and header too
  bool inline_memory() const;   // a private copy, not shared memory

  const std::shared_ptr<const client::BatchData>& data() const { return data_; }  // for the library itself

 private:
  absl::StatusOr<const RawTensor*> Find(absl::string_view name, v1::DType want) const;

  std::shared_ptr<const client::BatchData> data_;
};

}  // namespace stoker
