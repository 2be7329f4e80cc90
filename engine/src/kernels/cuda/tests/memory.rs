use super::{
    super::{CudaError, Event, Graph, Pinned},
    *,
};

#[test]
fn buffers_give_back_what_was_written() {
    let gpu = gpu();
    let numbers: Vec<u32> = (0..1000).collect();
    let buffer = Buffer::of(&gpu, &numbers).unwrap();
    buffer.write(10, &[7, 8]).unwrap();
    buffer.clear(990, 10).unwrap();
    assert_eq!(buffer.read_range(9, 4).unwrap(), [9, 7, 8, 12]);
    assert_eq!(buffer.read_range(989, 3).unwrap(), [989, 0, 0]);
    let copy: Buffer<u32> = Buffer::new(&gpu, 1001).unwrap();
    copy.copy(&buffer).unwrap();
    assert_eq!(copy.read_range(9, 2).unwrap(), [9, 7]);
    assert_eq!(copy.read_range(1000, 1).unwrap(), [0], "new memory is zero");
}

#[test]
fn more_than_there_is_is_an_error_and_no_harm() {
    let gpu = gpu();
    for bytes in [1 << 50, usize::MAX] {
        let refused = Buffer::<u8>::new(&gpu, bytes).map(drop);
        assert!(matches!(refused, Err(CudaError::OutOfMemory { .. } | CudaError::Call { .. })), "{refused:?}");
    }
    assert_eq!(Buffer::of(&gpu, &[5_u8]).unwrap().read().unwrap(), [5]);
}

#[test]
fn what_is_recorded_runs_when_it_is_started_and_each_time_anew() {
    let gpu = gpu();
    let (from, to) = (Buffer::of(&gpu, &[1_i32, 2, 3]).unwrap(), Buffer::<i32>::new(&gpu, 3).unwrap());
    let graph = Graph::record(&gpu, || to.copy(&from)).unwrap();
    assert_eq!(to.read().unwrap(), [0, 0, 0], "only recorded");
    graph.launch().unwrap();
    assert_eq!(to.read().unwrap(), [1, 2, 3]);
    from.write(0, &[4]).unwrap();
    graph.launch().unwrap();
    assert_eq!(to.read().unwrap(), [4, 2, 3]);
}

#[test]
fn a_recording_that_fails_leaves_the_device_usable() {
    let gpu = gpu();
    let buffer = Buffer::<i32>::new(&gpu, 3).unwrap();
    let failed = Graph::record(&gpu, || Err(CudaError::Absent("nothing".to_owned())));
    assert_eq!(failed.map(drop), Err(CudaError::Absent("nothing".to_owned())));
    buffer.write(0, &[9]).unwrap();
    assert_eq!(buffer.read().unwrap(), [9, 0, 0]);
}

#[test]
fn pinned_memory_goes_there_and_back_while_the_host_goes_on() {
    let gpu = gpu();
    let (mut to, mut from) = (Pinned::<i32>::new(&gpu, 4).unwrap(), Pinned::<i32>::new(&gpu, 4).unwrap());
    let (buffer, begun, done) = (Buffer::new(&gpu, 4).unwrap(), Event::new(&gpu).unwrap(), Event::new(&gpu).unwrap());
    to.copy_from_slice(&[1, 2, 3, 4]);
    gpu.bind().unwrap();
    begun.record().unwrap();
    buffer.start_write(&to, 3).unwrap();
    buffer.start_read(&mut from, 4).unwrap();
    done.record().unwrap();
    done.wait().unwrap();
    assert_eq!(*from, [1, 2, 3, 0]);
    assert!(done.since(&begun).unwrap().as_secs() < 60);
}
