// SPDX-License-Identifier: Apache-2.0
// The two threads of an assembler: what is uploaded, and what is let go.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/gpu/assembler_core.h"
#include "client/src/batch_data.h"
#include "shared/base/size.h"
#include "shared/base/status_macros.h"
#include "shared/tensor/layout.h"

namespace stoker::gpu {
namespace {

// How long one wait for a source or a device lasts before it is looked whether the assembler is closing.
constexpr absl::Duration kPoll = absl::Milliseconds(100);
// How often it is looked, while there is nothing to upload, whether what is shared is no longer used.
constexpr absl::Duration kSharingPoll = absl::Milliseconds(1);
// How long a consumer waits for a place that only other processes use, before it gets other memory.
constexpr absl::Duration kLentPatience = absl::Milliseconds(10);

}  // namespace

// ---- The uploader.

void AssemblerCore::RunUploader() {
  size_t slot;
  while (AwaitFreeSlot(&slot)) {
    absl::StatusOr<std::optional<Batch>> batch = NextOfSource();
    if (batch.ok() && !batch->has_value()) {
      Put({absl::OkStatus(), std::nullopt});
      continue;
    }
    absl::StatusOr<DeviceBatch> uploaded =
        batch.ok() ? Upload(slot, *std::move(*batch)) : absl::StatusOr<DeviceBatch>(batch.status());
    if (!uploaded.ok()) {
      Put({uploaded.status(), std::nullopt});
      absl::MutexLock lock(&mu_);
      broken_ = broken_ || batch.ok();
      break;
    }
    absl::MutexLock lock(&mu_);
    free_.erase(std::find(free_.begin(), free_.end(), slot));
    items_.push_back({absl::OkStatus(), *std::move(uploaded)});
  }
  absl::MutexLock lock(&mu_);
  uploads_over_ = true;
}

bool AssemblerCore::AwaitFreeSlot(size_t* slot) {
  absl::Time had_one = absl::Now();  // or something for the consumer
  while (true) {
    if (sharing_) TakeBackLent(absl::Now() - had_one > kLentPatience);
    if (sharing_) ReturnBorrowed();
    std::vector<size_t> free;
    absl::Duration pause;
    {
      absl::MutexLock lock(&mu_);
      const bool looks_again = !returned_.empty() || !without_memory_.empty() || (sharing_ && sharing_->lent() > 0);
      pause = looks_again ? kSharingPoll : kPoll;
      const absl::Duration timeout = looks_again ? kSharingPoll : absl::InfiniteDuration();
      mu_.AwaitWithTimeout(absl::Condition(this, &AssemblerCore::HasToLook), timeout);
      shared_came_back_ = false;
      if (!items_.empty()) had_one = absl::Now();
      if (!CanUpload()) continue;
      if (closing_ || !failure_.ok()) return false;
      free.assign(free_.begin(), free_.end());
    }
    for (const size_t each : free) {
      const absl::StatusOr<bool> released = IsReleased(slots_[each]);
      if (!released.ok()) Fail(Annotate(released.status(), "a batch that was given back"));
      if (!released.ok()) return false;
      *slot = each;
      if (*released) return true;
    }
    // For the one that was given back first: for the device, then for the consumers. What fails there is seen above.
    const Slot& first = slots_[free.front()];
    if (absl::Status status = AwaitDevice(first.ready.get()); !status.ok()) {
      Fail(status);
      return false;
    }
    for (const OwnedEvent& event : first.released) (void)runtime_->Wait(event.get(), pause);
  }
}

// Whether the consumers of the batch that was in it last are done.
absl::StatusOr<bool> AssemblerCore::IsReleased(const Slot& slot) const {
  for (const OwnedEvent& event : slot.released) {
    STOKER_ASSIGN_OR_RETURN(const bool come, runtime_->Query(event.get()));
    if (!come) return false;
  }
  return true;
}

void AssemblerCore::TakeBackLent(bool in_need) {
  std::vector<size_t> without_memory, still_without;
  {
    absl::MutexLock lock(&mu_);
    without_memory = without_memory_;
  }
  for (const CopySharing::Place& place : sharing_->TakeBack(in_need)) {
    if (place.lost) {
      without_memory.push_back(place.slot);
      continue;
    }
    absl::MutexLock lock(&mu_);
    free_.push_back(place.slot);
  }
  for (const size_t slot : without_memory) {
    const absl::StatusOr<bool> released = IsReleased(slots_[slot]);
    absl::Status status = released.status();
    if (status.ok() && *released) status = RenewMemory(slots_[slot], slot);
    if (absl::IsResourceExhausted(status) || (released.ok() && !*released)) {
      still_without.push_back(slot);  // until there is some
      continue;
    }
    absl::MutexLock lock(&mu_);
    free_.push_back(slot);
    failure_.Update(status.ok() ? status : Annotate(status, "a place that others still read"));
    broken_ = broken_ || !status.ok();
  }
  absl::MutexLock lock(&mu_);
  without_memory_ = std::move(still_without);
}

// Who has mapped the old one keeps it. We do not, so that there may be memory for the new one.
absl::Status AssemblerCore::RenewMemory(Slot& slot, size_t number) {
  sharing_->DropPlace(number);
  slot.own.Reset();
  return AllocateMemory(number, slot);
}

void AssemblerCore::ReturnBorrowed() {
  std::vector<Returned> returned;
  {
    absl::MutexLock lock(&mu_);
    returned = std::exchange(returned_, {});
  }
  for (Returned& each : returned) {
    const bool used = std::any_of(each.released.begin(), each.released.end(), [this](Event event) {
      const absl::StatusOr<bool> come = runtime_->Query(event);
      return !come.ok() || !*come;  // of a device that failed it is not known: until Close
    });
    if (!used) continue;
    absl::MutexLock lock(&mu_);
    returned_.push_back(std::move(each));
  }
}

// Then what was read may go. That may take as long as the consumer likes, if the device has not failed.
void AssemblerCore::AwaitUse(Event released) const {
  while (absl::IsDeadlineExceeded(runtime_->Wait(released, kPoll))) {
  }
}

// Of the assembler's own queues.
absl::Status AssemblerCore::AwaitDevice(Event event) const {
  const absl::Status status = runtime_->Wait(event, options_.device_timeout);
  if (!absl::IsDeadlineExceeded(status)) return status;
  return absl::InternalError(
      absl::StrCat("the device hangs: a batch is not on it after ", absl::FormatDuration(options_.device_timeout)));
}

absl::StatusOr<std::optional<Batch>> AssemblerCore::NextOfSource() {
  while (true) {
    absl::StatusOr<std::optional<Batch>> batch = source_.next(kPoll);
    if (closing()) return absl::CancelledError("the assembler is closed");
    if (batch.ok() || !absl::IsDeadlineExceeded(batch.status())) return batch;
  }
}

absl::StatusOr<DeviceBatch> AssemblerCore::Upload(size_t slot, Batch batch) {
  const std::string name = absl::StrCat("batch ", batch.epoch(), ":", batch.step());
  absl::StatusOr<absl::Span<const uint8_t>> bytes = BytesOf(batch);
  if (!bytes.ok()) return Annotate(bytes.status(), name);
  CopySharing::Copy copy;
  if (sharing_) copy = sharing_->Claim(*batch.data(), bytes->size(), slot);
  const bool borrowed = copy.memory != nullptr;
  DeviceBatch result =
      Describe(slot, batch, borrowed ? static_cast<uint8_t*>(copy.memory->get()) : slots_[slot].memory);
  if (borrowed) bytes = absl::Span<const uint8_t>();
  const Expansion::Places places = {result.tensors_, slots_[slot].memory + slot_bytes_ - expansion_.max_bytes(),
                                    static_cast<const double*>(shared_.get()), WordsOnDevice(result.words_)};
  std::vector<DeviceTensor> made;
  Program program;
  bool in_place = false;
  absl::Status status = expansion_.Plan(batch, places, &made, &program);
  if (status.ok()) status = EnqueueCopy(slot, batch, *bytes, &in_place);
  if (status.ok()) status = EnqueueExpansion(result, program);
  if (status.ok() && !in_place) status = batch.Check();
  if (!status.ok()) {
    copy_queue_.Reset();  // returns when nothing reads the batch any more
    if (copy.lent) sharing_->GiveUp(slot);
    return Annotate(status, name);
  }
  result.uploaded_bytes_ = bytes->size();
  for (DeviceTensor& tensor : made) {
    result.expanded_bytes_ += tensor.bytes;
    result.tensors_.push_back(std::move(tensor));
  }
  if (borrowed) slots_[slot].borrowed = {batch, std::move(copy.memory)};
  NoteUploaded(result, std::move(batch), in_place, copy.lent, program.count > 0);
  return result;
}

void AssemblerCore::NoteUploaded(DeviceBatch& result, Batch batch, bool in_place, bool lent, bool expands) {
  absl::MutexLock lock(&mu_);
  if (in_place || lent || expands) {
    std::optional<Batch> read = in_place ? std::optional<Batch>(std::move(batch)) : std::nullopt;
    pending_.push_back({std::move(read), lent, result.slot_, result.words_, result.epoch_, result.step_});
    ++looking_at_;
  }
  ++report_.batches;
  if (slots_[result.slot_].borrowed) ++report_.borrowed_batches;
  report_.uploaded_bytes += result.uploaded_bytes_;
  report_.expanded_bytes += result.expanded_bytes_;
  report_.registered_bytes = staging_->registered_bytes();
  report_.pinned_bytes = staging_->pinned_bytes();
  staging_notice_ = staging_->notice();
}

// What is uploaded: all after the extent's header, up to the last tensor's end.
absl::StatusOr<absl::Span<const uint8_t>> AssemblerCore::BytesOf(const Batch& batch) const {
  const uint8_t* const begin = batch.data()->extent() + tensor::kExtentHeaderBytes;
  const uint8_t* end = begin;
  for (const RawTensor& tensor : batch.tensors()) {
    if (!tensor.bytes.empty()) end = std::max(end, tensor.bytes.data() + tensor.bytes.size());
  }
  const absl::Span<const uint8_t> bytes(begin, static_cast<size_t>(end - begin));
  const uint64_t room = slot_bytes_ - expansion_.max_bytes();
  if (bytes.size() <= room) return bytes;
  return absl::ResourceExhaustedError(absl::StrCat("it has ", FormatSize(bytes.size()), ", over the ", FormatSize(room),
                                                   " that the stream announced for its largest"));
}

DeviceBatch AssemblerCore::Describe(size_t slot, const Batch& batch, uint8_t* memory) {
  DeviceBatch result;
  result.slot_ = slot;
  result.words_ = next_words_++ % WordSets();
  result.epoch_ = batch.epoch();
  result.step_ = batch.step();
  result.samples_ = batch.samples();
  const uint8_t* const begin = batch.data()->extent() + tensor::kExtentHeaderBytes;
  for (const RawTensor& tensor : batch.tensors()) {
    result.tensors_.push_back({std::string(tensor.name),
                               tensor.dtype,
                               {tensor.shape.begin(), tensor.shape.end()},
                               memory + (tensor.bytes.data() - begin),
                               tensor.bytes.size()});
  }
  return result;
}

absl::Status AssemblerCore::EnqueueCopy(size_t slot, const Batch& batch, absl::Span<const uint8_t> bytes,
                                        bool* in_place) {
  const Queue queue = copy_queue_.get();
  if (!bytes.empty()) {
    const auto await = [this](Event event) { return AwaitDevice(event); };
    STOKER_ASSIGN_OR_RETURN(*in_place, staging_->Upload(queue, *batch.data(), bytes, slots_[slot].memory, await));
  }
  return runtime_->Record(slots_[slot].copied.get(), queue);
}

absl::Status AssemblerCore::EnqueueExpansion(const DeviceBatch& batch, const Program& program) {
  const Slot& slot = slots_[batch.slot_];
  if (program.count == 0) return runtime_->Record(slot.ready.get(), copy_queue_.get());
  const Queue queue = expand_queue_.get();
  STOKER_RETURN_IF_ERROR(runtime_->QueueWait(queue, slot.copied.get()));
  STOKER_RETURN_IF_ERROR(runtime_->Launch(queue, program));
  STOKER_RETURN_IF_ERROR(runtime_->CopyToHost(queue, WordsOnHost(batch.words_), WordsOnDevice(batch.words_),
                                              Expansion::kErrorWords * sizeof(uint32_t)));
  return runtime_->Record(slot.ready.get(), queue);
}

uint32_t* AssemblerCore::WordsOnDevice(size_t words) const {
  auto* const first = reinterpret_cast<uint32_t*>(static_cast<double*>(shared_.get()) + expansion_.constants().size());
  return first + words * Expansion::kErrorWords;
}

uint32_t* AssemblerCore::WordsOnHost(size_t words) const {
  return static_cast<uint32_t*>(host_words_.get()) + words * Expansion::kErrorWords;
}

void AssemblerCore::Put(Item item) {
  absl::MutexLock lock(&mu_);
  items_.push_back(std::move(item));
}

// ---- The releaser.

void AssemblerCore::RunReleaser() {
  while (true) {
    Pending pending;
    {
      absl::MutexLock lock(&mu_);
      mu_.Await(absl::Condition(this, &AssemblerCore::HasPending));
      if (pending_.empty()) return;
      pending = std::move(pending_.front());
      pending_.pop_front();
    }
    if (absl::Status status = Look(pending); !status.ok()) {
      if (pending.lent) sharing_->GiveUp(pending.slot);
      Fail(Annotate(status, absl::StrCat("batch ", pending.epoch, ":", pending.step)));
    }
    // Not known to be copied: to be kept until the queue is drained.
    if (pending.batch.has_value()) kept_.push_back(*std::move(pending.batch));
    absl::MutexLock lock(&mu_);
    --looking_at_;
  }
}

// If the slot has been used again meanwhile, this waits for the later use too, which comes by itself.
absl::Status AssemblerCore::Look(Pending& pending) {
  if (pending.batch.has_value() || pending.lent) {
    STOKER_RETURN_IF_ERROR(AwaitDevice(slots_[pending.slot].copied.get()));
    // What was copied was the batch only if the memory holds it still.
    if (pending.batch.has_value()) STOKER_RETURN_IF_ERROR(pending.batch->Check());
    pending.batch.reset();
    if (std::exchange(pending.lent, false)) sharing_->Uploaded(pending.slot);
  }
  if (expansion_.empty()) return absl::OkStatus();
  STOKER_RETURN_IF_ERROR(AwaitDevice(slots_[pending.slot].ready.get()));
  return expansion_.CheckErrors(WordsOnHost(pending.words));
}

}  // namespace stoker::gpu
