import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.TopicAuthorizationException;
import org.apache.kafka.common.serialization.*;

/** Writes with every compression, with and without idempotence; reads all of it; asks for what it must not have. */
public class Client {
    static final String EVENTS = "carillon.events", CONFIG = "carillon.config";
    static final int RECORDS = 30;

    public static void main(String[] args) throws Exception {
        String at = args[0];
        Set<String> sent = new TreeSet<>();
        for (String compression : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            for (boolean idempotent : new boolean[] {true, false}) {
                sent.addAll(write(at, compression, idempotent));
            }
        }
        Properties properties = new Properties();
        properties.put("bootstrap.servers", at);
        properties.put("enable.auto.commit", "false");
        Deserializer<String> texts = new StringDeserializer();
        try (var consumer = new KafkaConsumer<>(properties, texts, texts)) {
            require(consumer.listTopics().keySet().equals(Set.of(EVENTS, "carillon.status")), "topics");
            try {
                consumer.partitionsFor(CONFIG);
                throw new AssertionError("the configuration is described");
            } catch (TopicAuthorizationException expected) {
                require(expected.unauthorizedTopics().equals(Set.of(CONFIG)), "the refusal");
            }
            List<TopicPartition> all = new ArrayList<>();
            consumer.partitionsFor(EVENTS).forEach(p -> all.add(new TopicPartition(EVENTS, p.partition())));
            consumer.assign(all);
            consumer.seekToBeginning(all);
            long end = consumer.endOffsets(all).values().stream().mapToLong(Long::longValue).sum();
            require(end == sent.size(), "the end offsets come to " + end);
            List<String> read = new ArrayList<>();
            long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(30);
            while (read.size() < end && System.nanoTime() < deadline) {
                for (var record : consumer.poll(Duration.ofMillis(200))) {
                    require(record.headers().lastHeader("ce_id") != null && record.timestamp() > 0, "a header and a time");
                    read.add(record.value());
                }
            }
            require(read.size() == sent.size() && new TreeSet<>(read).equals(sent), "read " + read.size());
        }
        System.out.println("sent and read " + sent.size());
    }

    static Set<String> write(String at, String compression, boolean idempotent) throws Exception {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", at);
        properties.put("compression.type", compression);
        properties.put("enable.idempotence", String.valueOf(idempotent));
        properties.put("linger.ms", "10");
        Serializer<String> texts = new StringSerializer();
        Set<String> sent = new TreeSet<>();
        try (var producer = new KafkaProducer<>(properties, texts, texts)) {
            List<Future<RecordMetadata>> futures = new ArrayList<>();
            for (int i = 0; i < RECORDS; i++) {
                String value = (compression + idempotent).repeat(40) + i;
                var record = new ProducerRecord<>(EVENTS, "key-" + i, value);
                record.headers().add("ce_id", String.valueOf(i).getBytes(StandardCharsets.UTF_8));
                futures.add(producer.send(record));
                sent.add(value);
            }
            for (var future : futures) {
                require(future.get(20, TimeUnit.SECONDS).hasOffset(), "an offset");
            }
            try {
                producer.send(new ProducerRecord<>(CONFIG, "forged")).get(20, TimeUnit.SECONDS);
                throw new AssertionError("the configuration is written");
            } catch (ExecutionException expected) {
                require(expected.getCause() instanceof TopicAuthorizationException, expected.toString());
            }
        }
        return sent;
    }

    static void require(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }
}
