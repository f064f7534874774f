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
namespace {

// How long one wait for a source or a device lasts before it is looked whether the assembler is closing.
constexpr absl::Duration kPoll = absl::Milliseconds(100);
// After this the device is taken to hang.
constexpr absl::Duration kDeviceDeadline = absl::Seconds(60);
// How often it is looked, while there is nothing to upload, whether what is shared is no longer used.
constexpr absl::Duration kSharingPoll = absl::Milliseconds(1);
// How long a consumer waits for a place that only other processes use, before it gets other memory.
constexpr absl::Duration kLentPatience = absl::Milliseconds(10);

}  // namespace

AssemblerCore::AssemblerCore(std::shared_ptr<DeviceRuntime> runtime, BatchSource source,
                             const AssemblerOptions& options)
    : runtime_(std::move(runtime)),
      source_(std::move(source)),
      options_(options),
      extent_bytes_(AlignUp(std::max(source_.info.batch_bytes(), tensor::kExtentHeaderBytes), kDeviceAlignment)),
      position_(source_.start) {}

// The last of the assembler and its batches is gone.
AssemblerCore::~AssemblerCore() {
  Close();
  for (const Slot& slot : slots_) {
    for (const OwnedEvent& event : slot.released)
      (void)runtime_->Wait(event.get(), kDeviceDeadline);  // or it has failed
  }
  FreeSlots();
}

absl::Status AssemblerCore::Open() {
  STOKER_ASSIGN_OR_RETURN(expansion_, Expansion::Create(options_.expand, source_.info));
  if (__builtin_add_overflow(extent_bytes_ - tensor::kExtentHeaderBytes, expansion_.max_bytes(), &slot_bytes_)) {
    return absl::InvalidArgumentError("batch_bytes: too large");
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
  for (const Returned& each : returned) AwaitUse(each);
}

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
    free_.pop_front();
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
    absl::MutexLock lock(&mu_);
    const bool looks_again = !returned_.empty() || !without_memory_.empty() || (sharing_ && sharing_->lent() > 0);
    const absl::Duration timeout = looks_again ? kSharingPoll : absl::InfiniteDuration();
    mu_.AwaitWithTimeout(absl::Condition(this, &AssemblerCore::HasToLook), timeout);
    shared_came_back_ = false;
    if (!items_.empty()) had_one = absl::Now();
    if (!CanUpload()) continue;
    if (closing_ || !failure_.ok()) return false;
    *slot = free_.front();
    return true;
  }
}

void AssemblerCore::TakeBackLent(bool in_need) {
  std::vector<size_t> without_memory = std::exchange(without_memory_, {});
  for (const CopySharing::Place& place : sharing_->TakeBack(in_need)) {
    if (place.lost) {
      without_memory.push_back(place.slot);
      continue;
    }
    absl::MutexLock lock(&mu_);
    free_.push_back(place.slot);
  }
  for (const size_t slot : without_memory) {
    const absl::Status status = RenewMemory(slots_[slot], slot);
    if (absl::IsResourceExhausted(status)) {
      without_memory_.push_back(slot);  // until there is some
      continue;
    }
    absl::MutexLock lock(&mu_);
    free_.push_back(slot);
    failure_.Update(status.ok() ? status : Annotate(status, "a place that others still read"));
    broken_ = broken_ || !status.ok();
  }
}

// Who has mapped the old one keeps it.
absl::Status AssemblerCore::RenewMemory(Slot& slot, size_t number) {
  for (const OwnedEvent& event : slot.released) {
    STOKER_RETURN_IF_ERROR(runtime_->Wait(event.get(), kDeviceDeadline));
  }
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

// Then the lease may go.
void AssemblerCore::AwaitUse(const Returned& returned) const {
  for (const Event event : returned.released) (void)runtime_->Wait(event, kDeviceDeadline);  // or it has failed
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
  for (const OwnedEvent& event : slots_[slot].released) STOKER_RETURN_IF_ERROR(runtime_->QueueWait(queue, event.get()));
  if (!bytes.empty()) {
    STOKER_ASSIGN_OR_RETURN(*in_place,
                            staging_->Upload(queue, *batch.data(), bytes, slots_[slot].memory, kDeviceDeadline));
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
    STOKER_RETURN_IF_ERROR(runtime_->Wait(slots_[pending.slot].copied.get(), kDeviceDeadline));
    // What was copied was the batch only if the memory holds it still.
    if (pending.batch.has_value()) STOKER_RETURN_IF_ERROR(pending.batch->Check());
    pending.batch.reset();
    if (std::exchange(pending.lent, false)) sharing_->Uploaded(pending.slot);
  }
  if (expansion_.empty()) return absl::OkStatus();
  STOKER_RETURN_IF_ERROR(runtime_->Wait(slots_[pending.slot].ready.get(), kDeviceDeadline));
  return expansion_.CheckErrors(WordsOnHost(pending.words));
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
    Fail(status);
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
    // Without an event, there is only waiting: the memory must not change before the consumer is done.
    status.Update(runtime_->Drain(consumers[i]));
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
  AwaitUse(returned);
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
  report.held = report.depth - static_cast<int>(free_.size() + lent) - static_cast<int>(waiting);
  for (const std::string& notice : {runtime_->info().notice, staging_notice_, sharing_ ? sharing_->notice() : ""}) {
    if (!notice.empty()) absl::StrAppend(&report.notice, report.notice.empty() ? "" : "; ", notice);
  }
  return report;
}

}  // namespace stoker::gpu
