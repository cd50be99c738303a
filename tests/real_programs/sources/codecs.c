// Encodes sound and pictures with eight codecs of libavcodec, and decodes the pictures.
#include <libavcodec/avcodec.h>
#include <libavutil/adler32.h>
#include <libavutil/channel_layout.h>
#include <libavutil/frame.h>
#include <libavutil/log.h>
#include <stdio.h>
#include <string.h>

static AVCodecContext *open_encoder(const AVCodec *codec, AVCodecContext *c) {
    c->thread_count = 1;
    c->flags |= AV_CODEC_FLAG_BITEXACT;
    int error = avcodec_open2(c, codec, NULL);
    if (error < 0) printf("%s: error %d\n", codec->name, error);
    return c;
}

static void fill_sound(AVFrame *frame, int number) {
    for (int i = 0; i < frame->nb_samples; i++) {
        int value = (i * 37 + number * 101) % 2000 - 1000;
        if (frame->format == AV_SAMPLE_FMT_S16)
            ((short *)frame->data[0])[i] = value;
        else
            ((float *)frame->data[0])[i] = value / 1000.0f;
    }
}

static void sound(enum AVCodecID id, enum AVSampleFormat format) {
    const AVCodec *codec = avcodec_find_encoder(id);
    AVCodecContext *c = avcodec_alloc_context3(codec);
    c->sample_fmt = format;
    c->sample_rate = 44100;
    c->bit_rate = 128000;
    c->ch_layout = (AVChannelLayout)AV_CHANNEL_LAYOUT_MONO;
    open_encoder(codec, c);
    AVFrame *frame = av_frame_alloc();
    AVPacket *packet = av_packet_alloc();
    frame->nb_samples = c->frame_size ? c->frame_size : 1024;
    frame->format = format;
    frame->sample_rate = 44100;
    av_channel_layout_copy(&frame->ch_layout, &c->ch_layout);
    av_frame_get_buffer(frame, 0);
    unsigned long sum = 1;
    int bytes = 0;
    for (int number = 0; number < 6; number++) {
        av_frame_make_writable(frame);
        fill_sound(frame, number);
        frame->pts = (long)number * frame->nb_samples;
        avcodec_send_frame(c, number < 5 ? frame : NULL);
        for (; avcodec_receive_packet(c, packet) == 0; av_packet_unref(packet)) {
            sum = av_adler32_update(sum, packet->data, packet->size);
            bytes += packet->size;
        }
    }
    printf("%s: %d bytes, %lx\n", codec->name, bytes, sum);
}

static void fill_picture(AVFrame *frame, int number) {
    for (int plane = 0; plane < 3; plane++)
        for (int y = 0; y < (plane ? 72 : 144); y++)
            for (int x = 0; x < (plane ? 88 : 176); x++)
                frame->data[plane][y * frame->linesize[plane] + x] =
                    x * 3 + y * (plane + 1) + number * 5;
}

static unsigned long decoded(AVCodecContext *c, AVFrame *frame, unsigned long sum) {
    while (avcodec_receive_frame(c, frame) == 0)
        for (int y = 0; y < 144; y++)
            sum = av_adler32_update(sum, frame->data[0] + y * frame->linesize[0], 176);
    return sum;
}

static void pictures(enum AVCodecID id, enum AVPixelFormat format) {
    const AVCodec *codec = avcodec_find_encoder(id);
    AVCodecContext *c = avcodec_alloc_context3(codec);
    AVCodecContext *d = avcodec_alloc_context3(avcodec_find_decoder(id));
    c->width = d->width = 176;
    c->height = d->height = 144;
    c->time_base = (AVRational){1, 25};
    c->pix_fmt = format;
    c->bit_rate = 400000;
    c->gop_size = 5;
    c->strict_std_compliance = FF_COMPLIANCE_EXPERIMENTAL;
    open_encoder(codec, c);
    if (c->extradata_size) {
        d->extradata = av_mallocz(c->extradata_size + AV_INPUT_BUFFER_PADDING_SIZE);
        d->extradata_size = c->extradata_size;
        memcpy(d->extradata, c->extradata, c->extradata_size);
    }
    open_encoder(d->codec, d);
    AVFrame *frame = av_frame_alloc(), *result = av_frame_alloc();
    AVPacket *packet = av_packet_alloc();
    frame->format = format;
    frame->width = 176;
    frame->height = 144;
    av_frame_get_buffer(frame, 0);
    unsigned long sum = 1, output = 1;
    for (int number = 0; number < 8; number++) {
        av_frame_make_writable(frame);
        fill_picture(frame, number);
        frame->pts = number;
        avcodec_send_frame(c, number < 7 ? frame : NULL);
        for (; avcodec_receive_packet(c, packet) == 0; av_packet_unref(packet)) {
            sum = av_adler32_update(sum, packet->data, packet->size);
            avcodec_send_packet(d, packet);
            output = decoded(d, result, output);
        }
    }
    avcodec_send_packet(d, NULL);
    printf("%s: %lx, %lx\n", codec->name, sum, decoded(d, result, output));
}

int main(void) {
    av_log_set_level(AV_LOG_ERROR);
    sound(AV_CODEC_ID_MP2, AV_SAMPLE_FMT_S16);
    sound(AV_CODEC_ID_FLAC, AV_SAMPLE_FMT_S16);
    sound(AV_CODEC_ID_AC3, AV_SAMPLE_FMT_FLTP);
    sound(AV_CODEC_ID_AAC, AV_SAMPLE_FMT_FLTP);
    pictures(AV_CODEC_ID_MPEG4, AV_PIX_FMT_YUV420P);
    pictures(AV_CODEC_ID_MPEG2VIDEO, AV_PIX_FMT_YUV420P);
    pictures(AV_CODEC_ID_FFV1, AV_PIX_FMT_YUV420P);
    pictures(AV_CODEC_ID_MJPEG, AV_PIX_FMT_YUVJ420P);
    return 0;
}
