// SPDX-License-Identifier: Apache-2.0
// A process for tests that brings a stream to a device, which here is its own memory, and shares it with others there.
//
//   integration_device_reader address=PATH dataset=NAME batch=N epochs=N depth=N delay_ms=N hold=N
//
//   delay_ms=N   sleeps after each batch, holding it
//   hold=N       keeps the first N batches, says "holding", waits for a line on standard input, and says "intact" when
//                their bytes are what they were
// Output: "batch EPOCH:STEP DIGEST" each, "done BATCHES BORROWED NOTICE"; on an error "error CODE: MESSAGE" and exit 1.
#include <cstdio>
#include <iostream>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "client/gpu/assembler.h"
#include "client/gpu/host_runtime.h"
#include "shared/base/status_macros.h"
#include "stoker/client.h"
#include "tests/integration/arguments.h"
#include "tests/integration/digest.h"

namespace stoker {
namespace {

using testing::Arguments;
using testing::Number;

absl::StatusOr<uint32_t> DigestOf(const gpu::DeviceBatch& batch) {
  STOKER_RETURN_IF_ERROR(batch.Wait(absl::Seconds(60)));
  testing::Digest digest;
  for (const gpu::DeviceTensor& tensor : batch.tensors()) {
    digest.Add(tensor.name, tensor.dtype, tensor.shape, {static_cast<const uint8_t*>(tensor.data), tensor.bytes});
  }
  return digest.value();
}

absl::Status WaitHolding(const std::vector<std::pair<gpu::DeviceBatch, uint32_t>>& held) {
  std::cout << "holding" << std::endl;
  std::string line;
  std::getline(std::cin, line);
  for (const auto& [batch, before] : held) {
    STOKER_ASSIGN_OR_RETURN(const uint32_t digest, DigestOf(batch));
    if (digest != before) return absl::DataLossError("a batch changed while it was held");
  }
  std::cout << "intact" << std::endl;
  return absl::OkStatus();
}

absl::Status ReadAll(const Arguments& arguments) {
  STOKER_ASSIGN_OR_RETURN(const Client client, Client::Connect({.address = arguments.at("address")}));
  LoaderOptions options;
  options.dataset = arguments.at("dataset");
  options.plan.set_batch_size(static_cast<uint32_t>(Number(arguments, "batch", 8)));
  options.epochs = static_cast<uint64_t>(Number(arguments, "epochs", 1));
  options.reconnect_timeout = absl::Seconds(30);
  STOKER_ASSIGN_OR_RETURN(Loader loader, client.Open(options));
  const std::shared_ptr<gpu::DeviceRuntime> runtime = gpu::HostRuntime::Create();
  STOKER_ASSIGN_OR_RETURN(const gpu::OwnedQueue queue, gpu::OwnQueue(*runtime));
  STOKER_ASSIGN_OR_RETURN(
      const std::unique_ptr<gpu::Assembler> assembler,
      gpu::Assembler::Open(runtime, gpu::FromLoader(loader),
                           {.depth = Number(arguments, "depth", 4), .min_depth = 2, .share = true}));
  const auto hold = static_cast<size_t>(Number(arguments, "hold", 0));
  std::vector<std::pair<gpu::DeviceBatch, uint32_t>> held;
  while (assembler->position().epoch() < options.epochs) {
    STOKER_ASSIGN_OR_RETURN(std::optional<gpu::DeviceBatch> batch, assembler->Next(queue.get(), absl::Seconds(60)));
    if (!batch.has_value()) continue;
    STOKER_ASSIGN_OR_RETURN(const uint32_t digest, DigestOf(*batch));
    std::printf("batch %d:%d %08x\n", static_cast<int>(batch->epoch()), static_cast<int>(batch->step()), digest);
    std::fflush(stdout);
    absl::SleepFor(absl::Milliseconds(Number(arguments, "delay_ms", 0)));
    if (held.size() == hold) continue;
    held.emplace_back(*std::move(batch), digest);
    if (held.size() < hold) continue;
    STOKER_RETURN_IF_ERROR(WaitHolding(held));
  }
  const gpu::AssemblerReport report = assembler->report();
  std::cout << "done " << report.batches << " " << report.borrowed_batches << " " << report.notice << std::endl;
  return absl::OkStatus();
}

}  // namespace
}  // namespace stoker

int main(int argc, char** argv) {
  const absl::Status status = stoker::ReadAll(stoker::testing::ParseArguments(argc, argv));
  if (status.ok()) return 0;
  std::cout << "error " << absl::StatusCodeToString(status.code()) << ": " << status.message() << std::endl;
  return 1;
}
