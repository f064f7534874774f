// SPDX-License-Identifier: Apache-2.0
#include "client/gpu/assembler_core.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/src/batch_data.h"
#include "shared/base/size.h"
#include "shared/base/status_macros.h"
#include "shared/tensor/layout.h"

namespace stoker::gpu {

AssemblerCore::AssemblerCore(std::shared_ptr<DeviceRuntime> runtime, BatchSource source,
                             const AssemblerOptions& options)
    : runtime_(std::move(runtime)),
      source_(std::move(source)),
      options_(options),
      extent_bytes_(
          AlignUp(std::max(source_.info.largest().extent_bytes(), tensor::kExtentHeaderBytes), kDeviceAlignment)),
      position_(source_.start) {}

// The last of the assembler and its batches is gone.
AssemblerCore::~AssemblerCore() {
  Close();
  for (const Slot& slot : slots_) {
    for (const OwnedEvent& event : slot.released) AwaitUse(event.get());
  }
  FreeSlots();
}

absl::Status AssemblerCore::Open() {
  STOKER_ASSIGN_OR_RETURN(expansion_, Expansion::Create(options_.expand, source_.info));
  if (__builtin_add_overflow(extent_bytes_ - tensor::kExtentHeaderBytes, expansion_.max_bytes(), &slot_bytes_)) {
    return absl::InvalidArgumentError("largest.extent_bytes: too large");
  }
  if (options_.share) STOKER_RETURN_IF_ERROR(Share());
  STOKER_RETURN_IF_ERROR(Allocate());
  staging_ =
      std::make_unique<Staging>(*runtime_, StagingOptions{.mode = options_.staging,
                                                          .register_budget_bytes = options_.register_budget_bytes,
                                                          .ring_buffer_bytes = std::max<uint64_t>(extent_bytes_, 1)});
  STOKER_ASSIGN_OR_RETURN(copy_queue_, OwnQueue(*runtime_));
  if (!expansion_.empty()) STOKER_RETURN_IF_ERROR(AllocateExpansion());
  StartThreads();
  return absl::OkStatus();
}

// Where that is not possible, batches are uploaded by each process, and the report says why.
absl::Status AssemblerCore::Share() {
  absl::StatusOr<void*> memory = runtime_->AllocateExportable(1);
  if (absl::IsFailedPrecondition(memory.status()) || absl::IsUnavailable(memory.status())) {
    absl::MutexLock lock(&mu_);
    report_.notice = absl::StrCat("batches are not shared with other processes: ", memory.status().message());
    return absl::OkStatus();
  }
  STOKER_RETURN_IF_ERROR(memory.status());
  runtime_->Free(*memory);
  STOKER_ASSIGN_OR_RETURN(sharing_, CopySharing::Create(*runtime_));
  return absl::OkStatus();
}

void AssemblerCore::StartThreads() {
  absl::MutexLock lock(&close_mu_);
  uploader_ = std::thread([this] { RunUploader(); });
  releaser_ = std::thread([this] { RunReleaser(); });
}

void AssemblerCore::StopThreads() {
  {
    absl::MutexLock lock(&mu_);
    closing_ = true;
  }
  absl::MutexLock lock(&close_mu_);
  if (uploader_.joinable()) uploader_.join();
  if (releaser_.joinable()) releaser_.join();
}

absl::Status AssemblerCore::Restart(const std::function<absl::StatusOr<v1::Position>()>& seek) {
  StopThreads();
  std::deque<Item> forgotten;
  {
    absl::MutexLock lock(&mu_);
    std::swap(forgotten, items_);
    if (broken_) return absl::FailedPreconditionError(absl::StrCat("restart: ", failure_.message()));
  }
  const Queue last = expansion_.empty() ? copy_queue_.get() : expand_queue_.get();
  for (const Item& item : forgotten) {
    if (item.batch.has_value()) Return(item.batch->slot_, {last});
  }
  STOKER_ASSIGN_OR_RETURN(const v1::Position position, seek());
  {
    absl::MutexLock lock(&mu_);
    position_ = position;
    failure_ = broken_ ? failure_ : absl::OkStatus();
    closing_ = uploads_over_ = false;
  }
  StartThreads();
  return absl::OkStatus();
}

absl::Status AssemblerCore::Allocate() {
  const uint64_t limit = options_.device_bytes_limit != 0 ? options_.device_bytes_limit : runtime_->info().memory_bytes;
  const std::string needs =
      absl::StrCat("a batch of this stream needs up to ", FormatSize(slot_bytes_), " of device memory");
  const auto min_depth = static_cast<uint64_t>(options_.min_depth);
  const std::string at_least = min_depth == 1 ? needs : absl::StrCat(needs, ", and ", min_depth, " have to be there");
  if (slot_bytes_ > limit / min_depth) {
    return absl::ResourceExhaustedError(
        absl::StrCat(at_least, ", and the limit is ", FormatSize(limit), ": choose smaller batches or a budget"));
  }
  const auto depth = std::min<uint64_t>(options_.depth, slot_bytes_ == 0 ? options_.depth : limit / slot_bytes_);
  absl::Status status;
  while (slots_.size() < depth && status.ok()) status = AllocateSlot();
  if (slots_.size() < min_depth) return Annotate(status, at_least);
  if (!status.ok() && !absl::IsResourceExhausted(status)) return status;
  absl::MutexLock lock(&mu_);
  for (size_t i = 0; i < slots_.size(); ++i) free_.push_back(i);
  report_.depth = static_cast<int>(slots_.size());
  report_.device_bytes = slots_.size() * slot_bytes_;
  if (report_.depth < options_.depth) {
    absl::StrAppend(&report_.notice, report_.notice.empty() ? "" : "; ", report_.depth, " instead of ", options_.depth,
                    " batches on the device: ", needs, ", and there is room for no more");
  }
  return absl::OkStatus();
}

absl::Status AssemblerCore::AllocateSlot() {
  Slot slot;
  STOKER_ASSIGN_OR_RETURN(slot.copied, OwnEvent(*runtime_));
  STOKER_ASSIGN_OR_RETURN(slot.ready, OwnEvent(*runtime_));
  slot.released.emplace_back();
  STOKER_ASSIGN_OR_RETURN(slot.released[0], OwnEvent(*runtime_));
  STOKER_RETURN_IF_ERROR(AllocateMemory(slots_.size(), slot));
  slots_.push_back(std::move(slot));
  return absl::OkStatus();
}

absl::Status AssemblerCore::AllocateMemory(size_t number, Slot& slot) {
  const uint64_t bytes = std::max<uint64_t>(slot_bytes_, 1);
  if (options_.allocator.allocate != nullptr) {
    slot.memory = static_cast<uint8_t*>(options_.allocator.allocate(bytes));
    if (slot.memory != nullptr) return absl::OkStatus();
    return absl::ResourceExhaustedError(absl::StrCat("the caller's allocator has no ", FormatSize(bytes)));
  }
  absl::StatusOr<void*> memory = sharing_ ? runtime_->AllocateExportable(bytes) : runtime_->Allocate(bytes);
  STOKER_ASSIGN_OR_RETURN(slot.own, Own<DeviceMemory>(*runtime_, std::move(memory)));
  slot.memory = static_cast<uint8_t*>(slot.own.get());
  return sharing_ ? sharing_->SetPlace(number, slot.memory, bytes) : absl::OkStatus();
}

absl::Status AssemblerCore::AllocateExpansion() {
  STOKER_ASSIGN_OR_RETURN(expand_queue_, OwnQueue(*runtime_));
  const std::vector<double>& constants = expansion_.constants();
  const uint64_t words_at = constants.size() * sizeof(double);
  const uint64_t words = WordSets() * Expansion::kErrorWords;
  const uint64_t bytes = words_at + words * sizeof(uint32_t);
  STOKER_ASSIGN_OR_RETURN(shared_, Own<DeviceMemory>(*runtime_, runtime_->Allocate(bytes)));
  STOKER_ASSIGN_OR_RETURN(host_words_, Own<PinnedMemory>(*runtime_, runtime_->AllocateHost(bytes)));
  // Filled by way of the words' place, which then is what the device has.
  auto* const host = static_cast<uint8_t*>(host_words_.get());
  std::copy(constants.begin(), constants.end(), reinterpret_cast<double*>(host));
  std::fill_n(reinterpret_cast<uint32_t*>(host + words_at), words, kNoError);
  STOKER_RETURN_IF_ERROR(runtime_->CopyToDevice(expand_queue_.get(), shared_.get(), host, bytes));
  absl::Status copied = runtime_->Drain(expand_queue_.get());
  if (!copied.ok()) expand_queue_.Reset();  // before the memory goes
  std::fill_n(reinterpret_cast<uint32_t*>(host), words, kNoError);
  return copied;
}

void AssemblerCore::FreeSlots() {
  for (const Slot& slot : slots_) {
    if (options_.allocator.free != nullptr) options_.allocator.free(slot.memory);
  }
  slots_.clear();
}

void AssemblerCore::Close() {
  StopThreads();
  {
    absl::MutexLock lock(&close_mu_);
    copy_queue_.Reset();
    kept_.clear();
    expand_queue_.Reset();
    staging_.reset();  // pinned and registered memory
  }
  if (sharing_) sharing_->Close();
  std::vector<Returned> returned;
  {
    absl::MutexLock lock(&mu_);
    for (const Item& item : items_) {
      if (item.batch.has_value()) slots_[item.batch->slot_].borrowed.reset();
    }
    items_.clear();  // what nobody fetched nobody used: no slot to give back
    std::swap(returned, returned_);
  }
  for (const Returned& each : returned) {
    for (const Event event : each.released) AwaitUse(event);
  }
}

// ---- The consumer.

absl::StatusOr<std::optional<DeviceBatch>> AssemblerCore::Next(Queue consumer, absl::Duration timeout) {
  Item item;
  {
    absl::MutexLock lock(&mu_);
    if (!mu_.AwaitWithTimeout(absl::Condition(this, &AssemblerCore::HasItem), timeout)) {
      return absl::DeadlineExceededError("the next batch is not on the device yet");
    }
    if (!failure_.ok()) return failure_;
    if (closing_) return absl::CancelledError("the assembler is closed");
    item = std::move(items_.front());
    items_.pop_front();
    if (!item.status.ok()) {
      failure_ = item.status;
      return failure_;
    }
    if (!item.batch.has_value()) {
      position_.set_epoch(position_.epoch() + 1);
      position_.set_step(0);
      return std::optional<DeviceBatch>();
    }
  }
  DeviceBatch& batch = *item.batch;
  if (absl::Status status = runtime_->QueueWait(consumer, slots_[batch.slot_].ready.get()); !status.ok()) {
    if (!absl::IsFailedPrecondition(status)) {
      Fail(status);
      return status;
    }
    absl::MutexLock lock(&mu_);
    items_.push_front(std::move(item));  // for a queue that can wait
    return status;
  }
  batch.use_ = std::make_shared<SlotUse>(shared_from_this(), batch.slot_, consumer);
  absl::MutexLock lock(&mu_);
  position_.set_epoch(batch.epoch());
  position_.set_step(batch.step() + 1);
  return std::optional<DeviceBatch>(std::move(batch));
}

absl::Status AssemblerCore::UseOn(const SlotUse& use, Queue queue) {
  STOKER_RETURN_IF_ERROR(runtime_->QueueWait(queue, slots_[use.slot].ready.get()));
  absl::MutexLock lock(&use.mu);
  if (std::find(use.consumers.begin(), use.consumers.end(), queue) == use.consumers.end())
    use.consumers.push_back(queue);
  return absl::OkStatus();
}

absl::Status AssemblerCore::RecordReleased(Slot& slot, size_t number, Queue consumer) {
  while (slot.released.size() <= number) {
    STOKER_ASSIGN_OR_RETURN(OwnedEvent event, OwnEvent(*runtime_));
    slot.released.push_back(std::move(event));
  }
  return runtime_->Record(slot.released[number].get(), consumer);
}

void AssemblerCore::Return(size_t slot, absl::Span<const Queue> consumers) {
  Returned returned;
  for (size_t i = 0; i < consumers.size(); ++i) {
    absl::Status status = RecordReleased(slots_[slot], i, consumers[i]);
    if (status.ok()) {
      returned.released.push_back(slots_[slot].released[i].get());
      continue;
    }
    // Without an event, there is only waiting: the memory must not change before the consumer is done. A stream that is
    // captured cannot be waited for; nothing more is uploaded.
    if (!absl::IsFailedPrecondition(status)) status.Update(runtime_->Drain(consumers[i]));
    Fail(Annotate(status, "a batch that was given back"));
  }
  std::optional<Borrowed> borrowed = std::exchange(slots_[slot].borrowed, std::nullopt);
  const bool lent = sharing_ && sharing_->Return(slot);
  {
    absl::MutexLock lock(&mu_);
    shared_came_back_ = shared_came_back_ || lent || borrowed.has_value();
    if (!lent) free_.push_back(slot);
    if (!borrowed) return;
    returned.borrowed = *std::move(borrowed);
    if (!closing_) {
      returned_.push_back(std::move(returned));
      return;
    }
  }
  for (const Event event : returned.released) AwaitUse(event);
}

absl::Status AssemblerCore::WaitFor(const DeviceBatch& batch, absl::Duration timeout) const {
  STOKER_RETURN_IF_ERROR(runtime_->Wait(slots_[batch.slot_].ready.get(), timeout));
  return expansion_.empty() ? absl::OkStatus() : expansion_.CheckErrors(WordsOnHost(batch.words_));
}

void AssemblerCore::Fail(const absl::Status& status) {
  absl::MutexLock lock(&mu_);
  failure_.Update(status);
  broken_ = true;
}

v1::Position AssemblerCore::position() const {
  absl::MutexLock lock(&mu_);
  return position_;
}

AssemblerReport AssemblerCore::report() const {
  absl::MutexLock lock(&mu_);
  AssemblerReport report = report_;
  const auto waiting =
      std::count_if(items_.begin(), items_.end(), [](const Item& item) { return item.batch.has_value(); });
  const size_t lent = sharing_ ? sharing_->lent() : 0;
  report.held =
      report.depth - static_cast<int>(free_.size() + without_memory_.size() + lent) - static_cast<int>(waiting);
  for (const std::string& notice : {runtime_->info().notice, staging_notice_, sharing_ ? sharing_->notice() : ""}) {
    if (!notice.empty()) absl::StrAppend(&report.notice, report.notice.empty() ? "" : "; ", notice);
  }
  return report;
}

}  // namespace stoker::gpu
