// SPDX-License-Identifier: Apache-2.0
// What an assembler, its two threads (assembler_threads.cc) and its batches share. Not for others.
//
// The uploader takes a free place ("slot"), the next batch of the source, and queues the copy. The releaser waits for
// copies that read leased memory and lets the batches go. Next hands out what the uploader has queued, and a
// DeviceBatch that ends gives its slot back.
//
// Of a slot, on the device: `released` (its consumers are done) -> copy -> `copied` (the lease may go). The uploader
// waits for `released` on the host, for as long as consumers like: so what is in the assembler's own queues waits for
// nothing but the device, and when that takes too long the device hangs.
//
// With sharing (sharing.h) a slot may be lent: it is free again when others are done too. And a batch may be borrowed:
// its tensors are in another process' memory, the slot has only what was expanded. Its lease goes when its `released`
// events have come. The uploader looks after both while it waits for a slot.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "client/gpu/assembler.h"
#include "client/gpu/sharing.h"

namespace stoker::gpu {

class AssemblerCore final : public std::enable_shared_from_this<AssemblerCore> {
 public:
  AssemblerCore(std::shared_ptr<DeviceRuntime> runtime, BatchSource source, const AssemblerOptions& options);
  ~AssemblerCore();

  absl::Status Open();
  absl::StatusOr<std::optional<DeviceBatch>> Next(Queue consumer, absl::Duration timeout);
  absl::Status Restart(const std::function<absl::StatusOr<v1::Position>()>& seek);
  absl::Status UseOn(const SlotUse& use, Queue queue);
  void Return(size_t slot, absl::Span<const Queue> consumers);
  absl::Status WaitFor(const DeviceBatch& batch, absl::Duration timeout) const;
  v1::Position position() const;
  AssemblerReport report() const;
  void Close();

 private:
  // A batch in another process' memory, kept until it is no longer read.
  struct Borrowed {
    Batch batch;
    std::shared_ptr<ImportedMemory> memory;
  };
  struct Returned {
    Borrowed borrowed;
    std::vector<Event> released;
  };
  struct Slot {
    uint8_t* memory = nullptr;
    DeviceMemory own;  // unless it is the caller's
    OwnedEvent copied;
    OwnedEvent ready;
    std::vector<OwnedEvent> released;  // one for each queue that its batch is used on
    std::optional<Borrowed> borrowed;  // from the upload until it is returned
  };
  // What Next hands out: a batch, the end of an epoch, or the error after which nothing comes.
  struct Item {
    absl::Status status;
    std::optional<DeviceBatch> batch;
  };
  // What the releaser has to look after.
  struct Pending {
    std::optional<Batch> batch;  // that the copy reads
    bool lent;
    size_t slot;
    size_t words;
    uint64_t epoch, step;
  };

  absl::Status Allocate();
  absl::Status AllocateSlot();
  absl::Status AllocateMemory(size_t number, Slot& slot);
  absl::Status Share();
  absl::Status AllocateExpansion();
  void FreeSlots();

  void StartThreads();
  void StopThreads();

  void RunUploader();
  bool AwaitFreeSlot(size_t* slot);
  void TakeBackLent(bool in_need);
  absl::Status RenewMemory(Slot& slot, size_t number);
  absl::StatusOr<bool> IsReleased(const Slot& slot) const;
  void ReturnBorrowed();
  void AwaitUse(Event released) const;
  absl::Status AwaitDevice(Event event) const;
  absl::StatusOr<std::optional<Batch>> NextOfSource();
  absl::StatusOr<DeviceBatch> Upload(size_t slot, Batch batch);
  absl::StatusOr<absl::Span<const uint8_t>> BytesOf(const Batch& batch) const;
  DeviceBatch Describe(size_t slot, const Batch& batch, uint8_t* memory);
  uint32_t* WordsOnDevice(size_t words) const;
  uint32_t* WordsOnHost(size_t words) const;
  // Of no bytes: there is nothing to copy.
  absl::Status EnqueueCopy(size_t slot, const Batch& batch, absl::Span<const uint8_t> bytes, bool* in_place);
  void NoteUploaded(DeviceBatch& result, Batch batch, bool in_place, bool lent, bool expands);
  absl::Status EnqueueExpansion(const DeviceBatch& batch, const Program& program);
  void Put(Item item);

  void RunReleaser();
  absl::Status Look(Pending& pending);
  absl::Status RecordReleased(Slot& slot, size_t number, Queue consumer);
  void Fail(const absl::Status& status);

  bool CanUpload() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return closing_ || !failure_.ok() || (!free_.empty() && looking_at_ < WordSets());
  }
  bool HasToLook() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return shared_came_back_ || CanUpload(); }
  size_t WordSets() const { return 2 * slots_.size(); }
  bool HasItem() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return closing_ || !failure_.ok() || !items_.empty(); }
  bool HasPending() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return uploads_over_ || !pending_.empty(); }
  bool closing() const {
    absl::MutexLock lock(&mu_);
    return closing_;
  }

  const std::shared_ptr<DeviceRuntime> runtime_;
  const BatchSource source_;
  const AssemblerOptions options_;
  const uint64_t extent_bytes_;  // of the largest batch
  Expansion expansion_;
  uint64_t slot_bytes_ = 0;
  std::vector<Slot> slots_;
  DeviceMemory shared_;                   // the expansion's constants, then the error words
  PinnedMemory host_words_;               // the host's copy of the words
  size_t next_words_ = 0;                 // the uploader's
  std::unique_ptr<CopySharing> sharing_;  // null: batches are not shared
  std::unique_ptr<Staging> staging_;      // the uploader's
  OwnedQueue copy_queue_;                 // the uploader's; drained before staging and slots go
  OwnedQueue expand_queue_;               // so that a copy need not wait for the expansion before it

  std::vector<Batch> kept_;  // the releaser's: whose copy could not be waited for

  mutable absl::Mutex mu_;
  bool closing_ ABSL_GUARDED_BY(mu_) = false;
  bool uploads_over_ ABSL_GUARDED_BY(mu_) = false;  // nothing is added to pending_ any more
  absl::Status failure_ ABSL_GUARDED_BY(mu_);       // of the device, or the error that Next gave
  bool broken_ ABSL_GUARDED_BY(mu_) = false;        // by the device, or by what was lost while it was copied
  std::deque<size_t> free_ ABSL_GUARDED_BY(mu_);
  std::vector<size_t> without_memory_ ABSL_GUARDED_BY(mu_);  // slots whose memory was left to others
  std::deque<Item> items_ ABSL_GUARDED_BY(mu_);
  std::deque<Pending> pending_ ABSL_GUARDED_BY(mu_);
  size_t looking_at_ ABSL_GUARDED_BY(mu_) = 0;           // pending_, and the one that the releaser has taken
  std::vector<Returned> returned_ ABSL_GUARDED_BY(mu_);  // borrowed, and perhaps still read by the device
  bool shared_came_back_ ABSL_GUARDED_BY(mu_) = false;   // something lent or borrowed: the uploader shall look
  v1::Position position_ ABSL_GUARDED_BY(mu_);
  AssemblerReport report_ ABSL_GUARDED_BY(mu_) = {};
  std::string staging_notice_ ABSL_GUARDED_BY(mu_);

  absl::Mutex close_mu_;
  std::thread uploader_ ABSL_GUARDED_BY(close_mu_);
  std::thread releaser_ ABSL_GUARDED_BY(close_mu_);
};

// Gives a slot back when its last DeviceBatch goes.
struct SlotUse {
  std::shared_ptr<AssemblerCore> core;
  size_t slot;
  mutable absl::Mutex mu;
  mutable std::vector<Queue> consumers ABSL_GUARDED_BY(mu);
  SlotUse(std::shared_ptr<AssemblerCore> its_core, size_t its_slot, Queue consumer)
      : core(std::move(its_core)), slot(its_slot), consumers({consumer}) {}
  SlotUse(const SlotUse&) = delete;
  SlotUse& operator=(const SlotUse&) = delete;
  ~SlotUse() { core->Return(slot, consumers); }
};

}  // namespace stoker::gpu
