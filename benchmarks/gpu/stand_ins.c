/* Empty stand-ins for the CUDA driver, parts of the CUDA runtime, cuDNN and TensorRT.
 *
 * They let the provider libraries of onnxruntime-gpu load, and their constructors end, on a machine without a GPU, so
 * that take_kernel_snapshot.py can list the kernels that they register. The list is compiled in: it does not depend on
 * the device. Nothing computes with these functions; each reports success and does nothing.
 */
#include <stddef.h>
#include <string.h>

/* CUDA driver */
int cuTensorMapEncodeTiled(void) { return 100; }

/* CUDA runtime: what the provider's constructor calls */
int cudaSetDevice(int device) { return 0; }
int cudaGetDevice(int *device) { *device = 0; return 0; }
int cudaGetDeviceCount(int *count) { *count = 1; return 0; }
int cudaGetDeviceProperties(void *properties, int device) {
  memset(properties, 0, 512); /* less than sizeof(cudaDeviceProp) of CUDA 13, and all that is read */
  return 0;
}
int cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes) { *free_bytes = *total_bytes = (size_t)1 << 34; return 0; }
int cudaDeviceGetAttribute(int *value, int attribute, int device) { *value = 0; return 0; }
int cudaStreamCreateWithFlags(void **stream, unsigned flags) { *stream = NULL; return 0; }
int cudaStreamDestroy(void *stream) { return 0; }
int cudaStreamSynchronize(void *stream) { return 0; }
int cudaDeviceSynchronize(void) { return 0; }
int cudaGetLastError(void) { return 0; }
int cudaEventCreateWithFlags(void **event, unsigned flags) { *event = NULL; return 0; }
int cudaEventDestroy(void *event) { return 0; }

/* cuBLAS and cuDNN */
int cublasCreate_v2(void **handle) { *handle = NULL; return 0; }
int cublasDestroy_v2(void *handle) { return 0; }
int cublasSetStream_v2(void *handle, void *stream) { return 0; }
int cudnnCreate(void **handle) { *handle = NULL; return 0; }
int cudnnDestroy(void *handle) { return 0; }
int cudnnSetStream(void *handle, void *stream) { return 0; }

/* TensorRT: objects of C++ classes, whose every virtual function returns 0 */
static long nothing(void) { return 0; }
static void *table[256];
static void **object = table;
__attribute__((constructor)) static void fill(void) {
  for (size_t i = 0; i < sizeof table / sizeof *table; i++) table[i] = (void *)nothing;
}
void *createInferBuilder_INTERNAL(void) { return &object; }
void *createInferRefitter_INTERNAL(void) { return &object; }
void *createInferRuntime_INTERNAL(void) { return &object; }
void *createNvOnnxParserRefitter_INTERNAL(void) { return &object; }
void *createNvOnnxParser_INTERNAL(void) { return &object; }
int getInferLibVersion(void) { return 101000; }
void *getPluginRegistry(void) { return &object; }
