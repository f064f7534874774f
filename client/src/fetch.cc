// SPDX-License-Identifier: Apache-2.0
#include "client/src/fetch.h"

#include <stdlib.h>

#include <cstring>

#include "absl/strings/str_cat.h"
#include "client/src/grpc_status.h"
#include "shared/base/size.h"
#include "shared/base/status_macros.h"
#include "shared/tensor/layout.h"

namespace stoker::client {

absl::StatusOr<std::shared_ptr<uint8_t>> AllocateExtent(uint64_t size_bytes) {
  std::shared_ptr<uint8_t> bytes(
      static_cast<uint8_t*>(::aligned_alloc(tensor::kExtentAlignment, AlignUp(size_bytes, tensor::kExtentAlignment))),
      &::free);
  if (bytes == nullptr) {
    return absl::ResourceExhaustedError(absl::StrCat("copy batch: no memory for ", FormatSize(size_bytes)));
  }
  return bytes;
}

absl::StatusOr<std::shared_ptr<uint8_t>> FetchExtent(v1::Stoker::Stub& stub, const v1::FetchRequest& request,
                                                     uint64_t size_bytes, grpc::ClientContext* context) {
  STOKER_ASSIGN_OR_RETURN(std::shared_ptr<uint8_t> bytes, AllocateExtent(size_bytes));
  const std::unique_ptr<grpc::ClientReader<v1::FetchChunk>> reader = stub.Fetch(context, request);
  v1::FetchChunk chunk;
  uint64_t done = 0;
  bool whole = true;
  while (whole && reader->Read(&chunk)) {
    whole = chunk.offset_bytes() == done && chunk.data().size() <= size_bytes - done;
    if (!whole) break;
    std::memcpy(bytes.get() + done, chunk.data().data(), chunk.data().size());
    done += chunk.data().size();
  }
  if (!whole) context->TryCancel();
  const grpc::Status status = reader->Finish();
  if (whole && !status.ok()) return ToStatus(status);
  if (!whole || done != size_bytes) {
    return absl::DataLossError(absl::StrCat("fetch batch: lease ", request.lease(), ": got bytes up to ", done,
                                            " in order, want ", size_bytes));
  }
  return bytes;
}

}  // namespace stoker::client
