// SPDX-License-Identifier: Apache-2.0
// Batches for an assembler out of a "segment" that is memory of the test's own: leases are counted, and what lies in a
// returned one is overwritten at once, so that a lease that returns before its bytes were copied shows.
#pragma once

#include <cstring>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "client/gpu/assembler.h"
#include "client/src/batch_data.h"
#include "shared/base/size.h"
#include "shared/segment/header.h"
#include "shared/tensor/layout.h"

namespace stoker::gpu {

// A tensor of a batch with its bytes.
struct TensorBytes {
  tensor::TensorSpec spec;
  std::vector<uint8_t> bytes;
};

template <typename T>
TensorBytes MakeTensor(std::string name, v1::DType dtype, std::vector<int64_t> shape, const std::vector<T>& values) {
  std::vector<uint8_t> bytes(values.size() * sizeof(T));
  if (!bytes.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
  return {{std::move(name), dtype, std::move(shape)}, std::move(bytes)};
}

inline tensor::Layout LayoutOf(const std::vector<TensorBytes>& tensors) {
  std::vector<tensor::TensorSpec> specs;
  specs.reserve(tensors.size());
  for (const TensorBytes& tensor : tensors) specs.push_back(tensor.spec);
  return *tensor::Layout::Create(specs);
}

// The segment: slots of equal size, of which each lease has one. Outlives its source, as long as a batch is held.
class MemorySegment final : public client::LeaseOwner {
 public:
  MemorySegment(uint64_t slots, uint64_t slot_bytes)
      : slot_bytes_(AlignUp(slot_bytes, 4096)),
        bytes_(slots * slot_bytes_),
        memory_(static_cast<uint8_t*>(::aligned_alloc(4096, bytes_)), &::free) {
    for (uint64_t slot = 0; slot < slots; ++slot) free_.insert(slot);
  }

  // Lies at a free slot until it is released; waits for one.
  std::shared_ptr<client::BatchData> Lease(std::shared_ptr<MemorySegment> self, const std::vector<TensorBytes>& tensors,
                                           uint64_t epoch, uint64_t step, uint64_t samples, bool in_segment) {
    const tensor::Layout layout = LayoutOf(tensors);
    absl::MutexLock lock(&mu_);
    mu_.Await(absl::Condition(this, &MemorySegment::HasFree));
    const uint64_t slot = *free_.begin();
    free_.erase(free_.begin());
    uint8_t* const extent = memory_.get() + slot * slot_bytes_;
    auto* header = reinterpret_cast<segment::ExtentHeader*>(extent);
    header->magic = segment::kExtentMagic;
    segment::WriteSequence(extent, ++sequence_);
    for (size_t i = 0; i < tensors.size(); ++i) {
      if (tensors[i].bytes.empty()) continue;
      std::memcpy(extent + layout.offset_bytes(i), tensors[i].bytes.data(), tensors[i].bytes.size());
    }
    v1::BatchDescriptor descriptor;
    descriptor.set_epoch(epoch);
    descriptor.set_step(step);
    descriptor.set_samples(samples);
    descriptor.set_sequence(sequence_);
    descriptor.set_extent_size_bytes(layout.extent_bytes());
    layout.Describe(&descriptor);
    auto data = std::make_shared<client::BatchData>(descriptor, extent, memory_, !in_segment);
    if (in_segment) data->SetMapping({memory_.get(), bytes_});
    data->AttachLease(std::move(self), slot);
    return data;
  }

  void Release(uint64_t slot) override {
    absl::MutexLock lock(&mu_);
    std::memset(memory_.get() + slot * slot_bytes_, 0xdd, slot_bytes_);
    free_.insert(slot);
    ++released_;
  }

  // As when the daemon writes an extent anew while a client that lost its lease still reads it.
  void OverwriteAll() {
    absl::MutexLock lock(&mu_);
    for (uint64_t at = 0; at < bytes_; at += slot_bytes_) segment::WriteSequence(memory_.get() + at, 1u << 30);
  }

  uint64_t leased() const {
    absl::MutexLock lock(&mu_);
    return bytes_ / slot_bytes_ - free_.size();
  }
  bool AwaitLeased(uint64_t count) const {
    const auto has = [this, count]()
                         ABSL_NO_THREAD_SAFETY_ANALYSIS { return bytes_ / slot_bytes_ - free_.size() == count; };
    absl::MutexLock lock(&mu_);
    return mu_.AwaitWithTimeout(absl::Condition(&has), absl::Seconds(20));
  }

 private:
  bool HasFree() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return !free_.empty(); }

  const uint64_t slot_bytes_;
  const uint64_t bytes_;
  const std::shared_ptr<uint8_t> memory_;
  mutable absl::Mutex mu_;
  std::set<uint64_t> free_ ABSL_GUARDED_BY(mu_);
  uint64_t sequence_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t released_ ABSL_GUARDED_BY(mu_) = 0;
};

// One epoch of the given batches, then its end, again and again.
class MemorySource {
 public:
  explicit MemorySource(std::vector<std::vector<TensorBytes>> batches, uint64_t slots = 4)
      : batches_(std::move(batches)) {
    for (const auto& batch : batches_) {
      extent_bytes_ = std::max(extent_bytes_, LayoutOf(batch).extent_bytes());
    }
    segment_ = std::make_shared<MemorySegment>(slots, extent_bytes_);
  }

  // To be called by one assembler at a time. `this` must outlive it. The schema is that of the first batch.
  BatchSource Source() {
    BatchSource source;
    source.start = at_;
    *source.info.mutable_largest() = Largest();
    for (const TensorBytes& tensor : batches_[0]) {
      auto* schema = source.info.add_schema();
      schema->set_name(tensor.spec.name);
      schema->set_dtype(tensor.spec.dtype);
      for (size_t d = 0; d < tensor.spec.shape.size(); ++d) schema->add_shape(Dimension(tensor.spec.name, d));
    }
    source.next = [this](absl::Duration timeout) { return Next(timeout); };
    return source;
  }

  MemorySegment& segment() { return *segment_; }
  void FailAt(uint64_t step, absl::Status status) {
    fail_at_ = step;
    failure_ = std::move(status);
  }
  void SeekTo(const v1::Position& position) { at_ = position; }
  void SetInSegment(bool in_segment) { in_segment_ = in_segment; }
  // The lease of this step is lost as soon as it is there.
  void OverwriteAt(uint64_t step) { overwrite_at_ = step; }
  // From now on nothing comes before Cancel().
  void Stall() {
    absl::MutexLock lock(&mu_);
    stalled_ = true;
  }
  void Cancel() {
    absl::MutexLock lock(&mu_);
    cancelled_ = true;
  }

 private:
  // Samples as the first dimension of the first tensor, the other counts by the names that a daemon gives.
  v1::SessionReply::LargestBatch Largest() const {
    uint64_t samples = 0, nodes = 0, edges = 0, triplets = 0;
    for (const auto& batch : batches_) {
      uint64_t of_batch = 0;
      for (const TensorBytes& tensor : batch) {
        const auto& shape = tensor.spec.shape;
        if (&tensor == &batch[0] && !shape.empty()) samples = std::max<uint64_t>(samples, shape[0]);
        if (tensor.spec.name == "atomic_number") nodes = std::max<uint64_t>(nodes, shape[0]);
        if (tensor.spec.name == "r" || tensor.spec.name == "distance") edges = std::max<uint64_t>(edges, shape[0]);
        if (tensor.spec.name != "num_triplets") continue;
        const auto* counts = reinterpret_cast<const int64_t*>(tensor.bytes.data());
        for (int64_t i = 0; i < shape[0]; ++i) of_batch += static_cast<uint64_t>(counts[i]);
      }
      triplets = std::max(triplets, of_batch);
    }
    v1::SessionReply::LargestBatch largest;
    largest.set_samples(samples);
    largest.set_nodes(nodes);
    largest.set_edges(edges);
    largest.set_triplets(triplets);
    largest.set_extent_bytes(extent_bytes_);
    return largest;
  }
  // -1 where batches differ.
  int64_t Dimension(const std::string& name, size_t d) const {
    int64_t size = -2;
    for (const auto& batch : batches_) {
      for (const TensorBytes& tensor : batch) {
        if (tensor.spec.name == name) size = size == -2 || size == tensor.spec.shape[d] ? tensor.spec.shape[d] : -1;
      }
    }
    return size;
  }

  absl::StatusOr<std::optional<Batch>> Next(absl::Duration timeout) {
    {
      absl::MutexLock lock(&mu_);
      if (stalled_) mu_.AwaitWithTimeout(absl::Condition(&cancelled_), timeout);
      if (cancelled_) return absl::CancelledError("the loader is closed");
      if (stalled_) return absl::DeadlineExceededError("the next batch is not ready yet");
    }
    if (at_.step() == batches_.size()) {
      at_.set_epoch(at_.epoch() + 1);
      at_.set_step(0);
      return std::optional<Batch>();
    }
    if (!failure_.ok() && at_.step() == fail_at_) return failure_;
    const auto& tensors = batches_[at_.step()];
    const uint64_t samples = tensors.empty() || tensors[0].spec.shape.empty() ? 0 : tensors[0].spec.shape[0];
    Batch batch(segment_->Lease(segment_, tensors, at_.epoch(), at_.step(), samples, in_segment_));
    if (at_.step() == overwrite_at_) segment_->OverwriteAll();
    at_.set_step(at_.step() + 1);
    return std::optional<Batch>(std::move(batch));
  }

  const std::vector<std::vector<TensorBytes>> batches_;
  uint64_t extent_bytes_ = 0;
  std::shared_ptr<MemorySegment> segment_;
  v1::Position at_;
  bool in_segment_ = true;
  uint64_t fail_at_ = 0;
  uint64_t overwrite_at_ = ~uint64_t{0};
  absl::Status failure_;
  absl::Mutex mu_;
  bool stalled_ ABSL_GUARDED_BY(mu_) = false;
  bool cancelled_ ABSL_GUARDED_BY(mu_) = false;
};

// Batches of odd sizes whose bytes follow from (step, tensor, element).
inline std::vector<std::vector<TensorBytes>> NumberedBatches(int count) {
  std::vector<std::vector<TensorBytes>> batches;
  for (int step = 0; step < count; ++step) {
    const int64_t rows = step % 3 == 2 ? 1 : 5 + step % 4;
    std::vector<float> x(rows * 129);
    for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(step * 1000) + static_cast<float>(i);
    std::vector<uint8_t> y(rows * 3, static_cast<uint8_t>(step));
    batches.push_back({MakeTensor("x", v1::DTYPE_F32, {rows, 129}, x), MakeTensor("y", v1::DTYPE_U8, {rows, 3}, y),
                       MakeTensor("empty", v1::DTYPE_I64, {0, 7}, std::vector<int64_t>())});
  }
  return batches;
}

}  // namespace stoker::gpu
