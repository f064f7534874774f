// SPDX-License-Identifier: Apache-2.0
// What the scheduler deals in, and what it needs from others.
#pragma once

#include <compare>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "shared/tensor/layout.h"
#include "stoker/v1/service.pb.h"

namespace stoker::schedule {

using StreamId = uint64_t;  // these ids begin at 1 and are never used again
using SessionId = uint64_t;
using LeaseId = uint64_t;
using PartId = uint64_t;

// Before the batch `step` of `epoch`.
struct Position {
  uint64_t epoch = 0;
  uint64_t step = 0;
  auto operator<=>(const Position&) const = default;
  template <typename H>
  friend H AbslHashValue(H h, const Position& p) {
    return H::combine(std::move(h), p.epoch, p.step);
  }
};

// The contiguous bytes of one batch, as the arena names them.
struct ExtentRef {
  uint32_t segment = 0;
  uint64_t offset = 0;
  uint64_t size = 0;
};

// Where extents come from.
class ExtentPool {
 public:
  virtual ~ExtentPool() = default;
  // At a multiple of `slot` from the begin of a segment.
  virtual std::optional<ExtentRef> Allocate(uint64_t size, uint64_t slot) = 0;
  virtual void Free(const ExtentRef& extent) = 0;
  virtual uint64_t largest_extent() const = 0;        // what an empty pool could allocate
  virtual uint64_t RoomFor(uint64_t size) const = 0;  // slots of `size` bytes
  virtual uint64_t capacity_bytes() const = 0;
  virtual void Describe(const ExtentRef& extent, v1::BatchDescriptor* batch) const = 0;
  // False once nobody can map the extent who has not yet: a batch there is not kept for sessions to come.
  virtual bool reachable(const ExtentRef& extent) const { return true; }
};

// What a stream's batches are: a pure function of position.
class BatchSource {
 public:
  virtual ~BatchSource() = default;
  virtual uint64_t Steps(uint64_t epoch) const = 0;                // of an epoch: at least 1
  virtual uint64_t SamplesAt(const Position& position) const = 0;  // may be 0
  virtual absl::StatusOr<tensor::Layout> LayoutAt(const Position& position) const = 0;
  virtual uint64_t full_batch_bytes() const = 0;           // of the largest extent of an epoch
  virtual uint64_t oversize_samples() const { return 0; }  // over the plan's budget
  // "sample 17 (pump.ts:37)", for messages. `i` counts within the batch.
  virtual std::string DescribeSample(const Position& position, uint64_t i) const = 0;
};

// Streams with equal keys are one stream.
struct StreamSpec {
  std::string key;  // store id, recipe digest, plan digest
  std::string dataset;
  std::string store;
  v1::Recipe recipe;
  v1::Plan plan;
  std::shared_ptr<const BatchSource> source;
};

struct SessionSpec {
  Position position;       // step may equal the steps of an epoch
  uint64_t end_epoch = 0;  // 0: endless
  int32_t pid = 0;         // for status
  std::string host;        // for status
};

// Samples [first, first + count) of one batch, to be written by one worker.
struct Part {
  PartId id = 0;
  StreamId stream = 0;
  Position at;
  uint32_t first = 0;
  uint32_t count = 0;
  ExtentRef extent;
};

// What the scheduler tells others. Calls come from within the scheduler's own methods and must not call back into it.
class Actions {
 public:
  virtual ~Actions() = default;
  virtual void Send(SessionId session, v1::SessionReply reply) = 0;
  // The session is over, for this reason; the scheduler has forgotten it.
  virtual void End(SessionId session, const absl::Status& reason) = 0;
  // The extent is about to be filled; who still looks at it must be able to tell.
  virtual void BeginFilling(const ExtentRef& extent, const Position& at) = 0;
  // All parts are written; `sequence` is what the batch's descriptor says. Whoever has been announced the batch sees
  // it.
  virtual void Seal(const ExtentRef& extent, uint64_t sequence) = 0;
  virtual void PartsReady() = 0;  // NextPart() has something
  virtual void StreamClosed(StreamId stream) = 0;
};

}  // namespace stoker::schedule
