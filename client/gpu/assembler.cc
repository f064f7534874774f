// SPDX-License-Identifier: Apache-2.0
#include "client/gpu/assembler.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/gpu/assembler_core.h"

namespace stoker::gpu {

BatchSource FromLoader(Loader& loader) {
  return {loader.info(), loader.position(), [&loader](absl::Duration timeout) { return loader.Next(timeout); }};
}

absl::StatusOr<DeviceTensor> DeviceBatch::Get(absl::string_view name) const {
  for (const DeviceTensor& tensor : tensors_) {
    if (tensor.name == name) return tensor;
  }
  const std::string names = absl::StrJoin(
      tensors_, ", ", [](std::string* out, const DeviceTensor& tensor) { absl::StrAppend(out, tensor.name); });
  return absl::NotFoundError(absl::StrCat("batch has no tensor \"", name, "\", it has ", names));
}

absl::Status DeviceBatch::Wait(absl::Duration timeout) const { return use_->core->WaitFor(*this, timeout); }
absl::Status DeviceBatch::UseOn(Queue queue) const { return use_->core->UseOn(*use_, queue); }

absl::StatusOr<std::unique_ptr<Assembler>> Assembler::Open(std::shared_ptr<DeviceRuntime> runtime, BatchSource source,
                                                           const AssemblerOptions& options) {
  if (options.depth < 1 || options.depth > 64) {
    return absl::InvalidArgumentError(absl::StrCat("depth: ", options.depth, " is outside [1, 64]"));
  }
  if (options.min_depth < 1 || options.min_depth > options.depth) {
    return absl::InvalidArgumentError(
        absl::StrCat("min_depth: ", options.min_depth, " is outside [1, depth], which is ", options.depth));
  }
  if (options.device_timeout <= absl::ZeroDuration()) {
    return absl::InvalidArgumentError(
        absl::StrCat("device_timeout: ", absl::FormatDuration(options.device_timeout), " is not above 0"));
  }
  if ((options.allocator.allocate == nullptr) != (options.allocator.free == nullptr)) {
    return absl::InvalidArgumentError("allocator: needs both allocate and free, or neither");
  }
  if (options.share && options.allocator.allocate != nullptr) {
    return absl::InvalidArgumentError("share: not with an allocator, whose memory other processes cannot map");
  }
  auto core = std::make_shared<AssemblerCore>(std::move(runtime), std::move(source), options);
  if (absl::Status status = core->Open(); !status.ok()) return status;
  return std::unique_ptr<Assembler>(new Assembler(std::move(core)));
}

Assembler::~Assembler() { Close(); }

absl::StatusOr<std::optional<DeviceBatch>> Assembler::Next(Queue consumer, absl::Duration timeout) {
  return core_->Next(consumer, timeout);
}
absl::Status Assembler::Restart(const std::function<absl::StatusOr<v1::Position>()>& seek) {
  return core_->Restart(seek);
}
v1::Position Assembler::position() const { return core_->position(); }
AssemblerReport Assembler::report() const { return core_->report(); }
void Assembler::Close() { core_->Close(); }

}  // namespace stoker::gpu
