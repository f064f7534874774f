// SPDX-License-Identifier: Apache-2.0
#include "client/python/src/device.h"
#include "shared/base/status_macros.h"

namespace stoker::python {

absl::StatusOr<std::optional<Batch>> DeviceSource::Next(absl::Duration timeout) {
  NoteSteps();
  absl::StatusOr<std::optional<Batch>> batch = loader_->Next(timeout);
  NoteSteps();
  return batch;
}

void DeviceSource::NoteSteps() {
  absl::MutexLock lock(&mu_);
  steps_[loader_->position().epoch()] = loader_->steps_per_epoch();
}

uint64_t DeviceSource::Steps(uint64_t epoch) {
  absl::MutexLock lock(&mu_);
  const auto known = steps_.find(epoch);
  return known != steps_.end() ? known->second : loader_->steps_per_epoch();
}

absl::StatusOr<DeviceReader> DeviceReader::Open(std::shared_ptr<DeviceTarget> target, std::shared_ptr<Loader> loader,
                                                gpu::AssemblerOptions options) {
  DeviceReader reader(std::move(target), std::move(loader), std::move(options));
  STOKER_RETURN_IF_ERROR(reader.OpenAssembler());
  return reader;
}

absl::Status DeviceReader::OpenAssembler() {
  source_ = std::make_shared<DeviceSource>(loader_);
  gpu::BatchSource batches = {loader_->info(), loader_->position(),
                              [source = source_](absl::Duration timeout) { return source->Next(timeout); }};
  STOKER_ASSIGN_OR_RETURN(assembler_, gpu::Assembler::Open(target_->runtime, std::move(batches), options_));
  stopped_ = false;
  return absl::OkStatus();
}

void DeviceReader::StopAt(const v1::Position& position) {
  at_ = position;
  stopped_ = true;
}

void DeviceReader::Drop() {
  StopAt(position());
  if (assembler_ == nullptr) return;
  assembler_->Close();
  assembler_ = nullptr;
  source_->Forget();
  source_ = nullptr;
}

// The assembler, or where the device failed it another one, goes on at the loader's position after `seek`.
absl::Status DeviceReader::Restart(const std::function<absl::Status()>& seek) {
  StopAt(position());
  bool sought = false;
  absl::Status status;
  if (assembler_ != nullptr) {
    status = assembler_->Restart([&]() -> absl::StatusOr<v1::Position> {
      sought = true;
      STOKER_RETURN_IF_ERROR(seek());
      return loader_->position();
    });
  }
  if (sought) {
    stopped_ = !status.ok();
    return status;
  }
  Drop();
  STOKER_RETURN_IF_ERROR(seek());
  return OpenAssembler();
}

absl::Status DeviceReader::GoOn() {
  if (!stopped_) return absl::OkStatus();
  return Restart([this] { return loader_->LoadState(loader_->SaveState(at_)); });
}

absl::Status DeviceReader::Move(const std::function<absl::Status(Loader&)>& how) {
  return Restart([this, &how] { return how(*loader_); });
}

uint64_t DeviceReader::steps_per_epoch() const {
  return source_ == nullptr ? loader_->steps_per_epoch() : source_->Steps(position().epoch());
}

gpu::AssemblerReport DeviceReader::report() const {
  return assembler_ == nullptr ? gpu::AssemblerReport{} : assembler_->report();
}

}  // namespace stoker::python
